"""Every error is what the documentation says, survives a journey, and tells what to do."""

from __future__ import annotations

import builtins
import copy
import errno
import os
import pickle
import queue
import re
from pathlib import Path

import pytest

import ringpost
from ringpost import errors
from ringpost.errors import Status, failure

HEADER = Path(__file__).parents[2] / "native" / "include" / "ringpost.h"
LABEL = "queue 'jobs' of ring:shop"
PATH = "/dev/shm/ringpost-0/shop/jobs.queue"

BASES = {
    "Empty": (queue.Empty,),
    "Full": (queue.Full,),
    "ShutDown": (Exception,),
    "RingpostError": (Exception,),
    "Stalled": (ringpost.RingpostError, queue.Empty, queue.Full),
    "MessageTooLarge": (ringpost.RingpostError, ValueError),
    "SegmentFull": (ringpost.RingpostError, OSError),
    "CorruptLog": (ringpost.RingpostError,),
    "LayoutMismatch": (ringpost.RingpostError,),
    "KeyRefused": (ringpost.RingpostError, PermissionError),
    "NotOurs": (ringpost.RingpostError, PermissionError),
    "QueueNotFound": (ringpost.RingpostError, LookupError),
    "QueueDeleted": (ringpost.RingpostError,),
    "SettingsMismatch": (ringpost.RingpostError, ValueError),
    "EncodeError": (ringpost.RingpostError, TypeError),
    "DecodeError": (ringpost.RingpostError, ValueError),
    "LeaseLost": (ringpost.RingpostError,),
    "Crowded": (ringpost.RingpostError,),
    "LeftOver": (ringpost.RingpostError,),
    "TooManyProcesses": (ringpost.RingpostError,),
    "StorageFailed": (ringpost.RingpostError, OSError),
    "StorageDamaged": (ringpost.CorruptLog,),
    "Unsupported": (ringpost.RingpostError,),
}

# what the message must say: what happened, and what to do about it where anything can be done
WORDS = {
    "EMPTY": (queue.Empty, ["is empty"]),
    "FULL": (queue.Full, ["is full", "4242 bytes", "consumers"]),
    "BUSY": (ringpost.Stalled, ["a process", "continue or kill"]),
    "STALLED": (ringpost.Stalled, ["process 777", "stopped", "continue or kill it"]),
    "SHUT_DOWN": (ringpost.ShutDown, ["is shut down"]),
    "DELETED": (ringpost.QueueDeleted, ["was deleted", "open it again"]),
    "TOO_LARGE": (ringpost.MessageTooLarge, ["4242 bytes", "at most 1000", "capacity="]),
    "CORRUPT": (ringpost.CorruptLog, [PATH, "damaged", "delete the queue and make it again"]),
    "LAYOUT": (ringpost.LayoutMismatch, [PATH, "another version", "delete the queue"]),
    "STALE": (errors.LeftOver, [PATH, "before a reboot"]),
    "NOT_OURS": (ringpost.NotOurs, [PATH, "0600", f"uid {os.geteuid()}"]),
    "NO_SLOT": (ringpost.TooManyProcesses, ["participant slots", "; "]),
    "NO_SPACE": (ringpost.SegmentFull, ["/dev/shm", "capacity=", "--shm-size", "RINGPOST_SHM_DIR"]),
    "EXISTS": (FileExistsError, ["exists", PATH]),
    "NOT_FOUND": (ringpost.QueueNotFound, ["does not exist", PATH]),
    "UNSUPPORTED": (ringpost.Unsupported, [PATH, "network file system", "set RINGPOST_SHM_DIR"]),
    "INVALID": (ValueError, ["out of range", "4242 bytes"]),
    "SYSTEM": (OSError, [os.strerror(errno.EMFILE), PATH]),
}
# these never leave the binding: if one does, the number is at least there
INTERNAL = ("OK", "INTERRUPTED", "TOO_SMALL", "LARGE", "TOO_MANY", "RETURNED_FIRST", "COLD")


def native_statuses() -> dict[str, int]:
    """As the compiler numbers them."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    body = re.search(r"typedef enum rp_status \{(.*?)\} rp_status;", text, re.DOTALL)[1]
    statuses: dict[str, int] = {}
    for entry in filter(None, (each.strip() for each in body.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        statuses[name.removeprefix("RP_")] = int(value) if value else len(statuses)
    return statuses


def failed(status: int) -> Exception:
    return failure(
        status,
        "put",
        LABEL,
        path=PATH,
        error=errno.EMFILE,
        size=4242,
        most=1000,
        holder=(777 * (status == 4), 0),
    )


def one_of_each() -> list[Exception]:
    decode = ringpost.DecodeError("text", b"payload", "msgpack", 7, "why")
    decode.items = [1, "two"]
    decode.more = [ringpost.DecodeError("another", b"p", "text", 8)]
    encode = ringpost.EncodeError("text")
    encode.put = 5
    settings = ringpost.SettingsMismatch("text")
    return [*(failed(status) for status in Status), decode, encode, settings]


def facts(error: BaseException) -> dict[str, object]:
    names = ("errno", "strerror", "filename", "payload", "codec", "sequence", "why", "items", "put")
    found = {name: getattr(error, name) for name in names if hasattr(error, name)}
    more = [facts(one) for one in getattr(error, "more", [])]
    return found | {"type": type(error), "text": str(error), "args": error.args, "more": more}


# ---- what they are ------------------------------------------------------------------------------


def test_every_error_class_is_listed_here() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and not name.startswith("_")
    }
    assert found == set(BASES)


@pytest.mark.parametrize("name", BASES)
def test_bases(name: str) -> None:
    error = getattr(errors, name)
    for base in BASES[name]:
        assert issubclass(error, base)
    assert error.__doc__
    builtin_bases = {base for base in error.__mro__ if base.__module__ == "builtins"}
    expected = {base for one in BASES[name] for base in one.__mro__ if base.__module__ == "builtins"}
    assert builtin_bases == expected


@pytest.mark.parametrize("name", sorted(set(BASES) - {"Crowded", "LeftOver"}))
def test_every_error_is_at_the_top(name: str) -> None:
    assert getattr(ringpost, name) is getattr(errors, name)
    assert name in ringpost.__all__


def test_what_the_standard_library_has_is_taken_from_there() -> None:
    assert ringpost.Empty is queue.Empty
    assert ringpost.Full is queue.Full
    assert ringpost.ShutDown is getattr(queue, "ShutDown", errors.ShutDown)


def test_a_stalled_lock_is_caught_as_a_timeout() -> None:
    for kind in (queue.Empty, queue.Full):
        with pytest.raises(kind):
            raise failed(Status.STALLED)


def test_none_shadows_a_builtin() -> None:
    assert [name for name in ringpost.__all__ if hasattr(builtins, name)] == []


# ---- what they say ------------------------------------------------------------------------------


def test_the_statuses_are_the_native_ones() -> None:
    assert native_statuses() == {status.name: status.value for status in Status}
    assert set(native_statuses()) == {*WORDS, *INTERNAL}


@pytest.mark.parametrize("name", WORDS)
def test_a_status_becomes_an_error_that_helps(name: str) -> None:
    error = failed(native_statuses()[name])
    expected, words = WORDS[name]
    assert type(error) is expected
    assert LABEL in str(error)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("name", INTERNAL)
def test_an_internal_status_is_still_an_error_with_its_number(name: str) -> None:
    error = failed(native_statuses()[name])
    assert type(error) is ringpost.RingpostError
    assert str(error) == f"cannot put {LABEL}: status {native_statuses()[name]}"


def test_a_status_of_a_newer_core() -> None:
    assert type(failed(99)) is ringpost.RingpostError


@pytest.mark.parametrize(
    ("name", "code"), [("NO_SPACE", errno.ENOSPC), ("NOT_OURS", errno.EACCES), ("EXISTS", errno.EEXIST)]
)
def test_errors_of_the_system_have_errno_and_filename(name: str, code: int) -> None:
    error = failed(native_statuses()[name])
    assert (error.errno, error.filename) == (code, PATH)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EACCES, PermissionError), (errno.ENOENT, FileNotFoundError), (errno.EMFILE, OSError)],
)
def test_an_error_of_the_system_is_the_kind_that_python_has_for_it(code: int, kind: type) -> None:
    error = failure(Status.SYSTEM, "open", LABEL, path=PATH, error=code)
    assert type(error) is kind
    assert (error.errno, error.filename) == (code, PATH)


def test_no_room_says_how_much_there_is(tmp_path: Path) -> None:
    here = failure(Status.NO_SPACE, "create", LABEL, path=str(tmp_path / "q"))
    nowhere = failure(Status.NO_SPACE, "create", LABEL, path=str(tmp_path / "gone" / "q"))
    assert re.search(r"\d+\.\d MiB free", str(here))
    assert "unknown room" in str(nowhere)


@pytest.mark.parametrize("size", [70_000, 100_000, 131_072, 131_073, 1_000_000])
def test_the_capacity_advised_for_a_large_message_is_enough(broker: ringpost.Broker, size: int) -> None:
    with pytest.raises(ringpost.MessageTooLarge) as raised:
        broker.queue("small", capacity=128 << 10).put(bytes(size))
    advised = int(re.search(r"capacity=(\d+)", str(raised.value))[1])
    large = broker.queue("large", capacity=advised)
    large.put_nowait(bytes(size))
    assert len(large.get_nowait()) == size


def test_the_most_that_it_names_does_fit(broker: ringpost.Broker) -> None:
    small = broker.queue("small", capacity=128 << 10)
    with pytest.raises(ringpost.MessageTooLarge) as raised:
        small.put(bytes(1_000_000))
    most = int(re.search(r"at most (\d+) bytes", str(raised.value))[1])
    small.put_nowait(bytes(most))
    small.get_nowait()
    with pytest.raises(ringpost.MessageTooLarge):
        small.put_nowait(bytes(most + 1))


# ---- how they travel ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", one_of_each(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_survives_pickle(error: Exception, protocol: int) -> None:
    assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)


@pytest.mark.parametrize("error", one_of_each(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_survives_a_copy(error: Exception, how) -> None:
    assert facts(how(error)) == facts(error)


def test_a_copy_of_a_decode_error_has_lists_of_its_own() -> None:
    error = ringpost.DecodeError("text", b"payload", "msgpack", 7)
    copied = copy.deepcopy(error)
    copied.items.append(1)
    assert error.items == []
