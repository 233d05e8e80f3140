"""The contract between ringpost and its native bindings: these names, with these promises.

A binding is a module with NAMES; tests/conformance runs on each. Bindings encode exact `bytes` and ASCII
`str` themselves, ask the codec for everything else, and turn each native status into an exception with
`ringpost.errors.failure`. A blocking call releases the GIL and notices signals and close() within 100 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

NAMES = (
    "NAME",
    "Delivery",
    "Group",
    "Loan",
    "Log",
    "Stored",
    "View",
    "Watch",
    "any_ttl",
    "attach",
    "collect",
    "contextmanager",
    "create",
    "find_frame",
    "frames_from_end",
    "let_go",
    "hand_out",
    "is_exact",
    "layout_version",
    "remove",
    "status_text",
    "subject_matches",
)


class Codec(Protocol):
    """See ringpost.codecs.

    Attributes:
        plain: exact bytes and ASCII str, and messages of these kinds, need not be shown to it. Default: True.
    """

    plain: bool

    def encode(self, item: object) -> tuple[int, Any]:
        """Kind and payload: a buffer, or a tuple of them, which travel behind one another."""

    def decode(self, kind: int, body: Any, sequence: int) -> Any:
        """`body` is bytes. Of kind 7 (pickles with buffers) it may be any buffer, which is good until this
        returns."""


class Delivery(Protocol):
    """One message out of a group. A class that can be subclassed; the binding makes instances of subclasses
    without calling __init__. The body is decoded when it is first asked for."""

    settled: bool
    holder: Any

    @property
    def group(self) -> Group: ...
    @property
    def body(self) -> Any: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def size(self) -> int:
        """Bytes of the payload."""

    def view(self) -> Any:
        """The payload's buffer, read-only: in shared memory if it lies there. The memory is used for
        nothing else as long as this object, or a buffer of it, is there; if that cannot be had, it is a
        copy."""

    def release(self) -> None:
        """Let go of what lies in shared memory; who has a view of it keeps it. Settling does so where
        view() was called. Later payload, body and view() raise ValueError, unless the payload was copied
        before."""

    @property
    def kind(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def raw_subject(self) -> bytes | None: ...
    @property
    def raw_headers(self) -> bytes | None: ...
    @property
    def sequence(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def ttl_ms(self) -> int: ...
    @property
    def expired(self) -> bool: ...
    @property
    def deliveries(self) -> int: ...
    @property
    def lost(self) -> int: ...


M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")


class Watch(Protocol):
    """A descriptor that is readable while a try may succeed. After a try that failed: clear(), arm(), try
    again; if that fails too, wait until it is readable. Not for a forked child."""

    @property
    def log(self) -> Log: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def clear(self) -> None: ...
    def arm(self) -> float | None:
        """Seconds until something is due that nobody will tell of."""

    def keep(self) -> None:
        """Timed ones: readable now, until it is armed again."""

    def glance(self, spins: int) -> bool:
        """For messages: spin a little until there may be some."""

    def look(self) -> bool:
        """Every tenth of a second, for wakers may die: is a try worth it? Raises QueueDeleted."""


class View(Protocol):
    """What Delivery.view() gives: a read-only buffer."""

    def __len__(self) -> int: ...


class Loan(Protocol):
    """Room for one message in shared memory. It is used for nothing else as long as this object, or a buffer
    of it, is there, or the message is in the log."""

    @property
    def open(self) -> bool: ...
    @property
    def buffer(self) -> memoryview:
        """Writable; read-only once it is no longer open."""

    def abort(self) -> None: ...


class Group(Protocol):
    """A cursor on a log which any number of consumers share. Thread-safe; works in a forked child."""

    @property
    def log(self) -> Log: ...
    def receive(
        self,
        limit: int,
        lease: float,
        block: bool,
        timeout: float | None,
        message_type: type[M],
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        """At least one message, or Empty; they stay in the log until they are settled. `into`, a set or a
        deque, gets them before any signal handler runs; `holder` becomes theirs."""

    def take(
        self,
        limit: int,
        block: bool,
        timeout: float | None,
        message_type: type[M],
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        """The same, for good: they are settled."""

    def watch(self, timed: bool = False) -> Watch:
        """For messages. Timed: readable by itself when something is due, and when a slice is over."""

    def settle_one(self, message: Any, patience: float | None = None) -> bool:
        """Ack. False: it is no longer ours. Stalled if somebody was stopped in here for `patience`
        seconds."""

    def settle(self, messages: Iterable[Any], patience: float | None = None) -> list[Any]:
        """Ack all of these. Returns those that were no longer ours."""

    def give_back(
        self,
        messages: Iterable[Any],
        delay: float = 0,
        unseen: bool = False,
        wait: bool = True,
        patience: float | None = None,
    ) -> list[Any]:
        """Hand them out again, `delay` seconds from now. Returns those that were no longer ours. With
        wait=False: Stalled if somebody else is at it."""

    def extend(self, message: Any, seconds: float | None, patience: float | None = None) -> bool: ...
    def restore(
        self,
        message_type: type[M],
        kind: int,
        payload: bytes,
        subject: bytes | None,
        headers: bytes | None,
        sequence: int,
        time_ns: int,
    ) -> M:
        """A message that was kept elsewhere: settled."""

    def info(self) -> dict[str, Any]: ...
    def holdings(self) -> list[dict[str, Any]]: ...
    def seek(self, sequence: int = 0, time_ns: int = 0) -> None: ...
    def set_pattern(self, pattern: str) -> None: ...
    def count_rejected(self, by: int = 1) -> None: ...
    def count_expired(self, by: int = 1) -> None: ...
    def count_dropped(self, by: int = 1) -> None: ...
    def interrupt(self) -> None:
        """Calls that wait in this object, in other threads, raise ValueError."""

    def abandon(self) -> None:
        """As remove(), for one that ends with us and that nobody here uses: never waits."""

    def remove(self) -> None: ...


class NativeGroup(Group, Protocol):
    """A group of one log, which may be stored."""

    def holds(self, message: Any) -> bool:
        """Is it still ours to settle?"""

    def discard(self, sequence: int) -> bool | None:
        """Ack one in whosever hands it is. None: it was not handed out yet; False: it was settled before."""


class Log(Protocol):
    """A handle of one log. Thread-safe; works in a forked child; detaches when nobody refers to it.

    Calls with block=False grant the holder of a lock a second, or `timeout` if that is a float below 1.

    `on_alarm` is called, if it is not None, before messages are taken and while they are waited for, once the
    alarm's time has come.

    `on_empty` is called, if it is not None, by a get() that found nothing, before it tries once more; what it
    returns is called, if it is not None, when that got something.
    """

    on_alarm: Callable[[], None] | None
    on_empty: Callable[[], Callable[[], None] | None] | None

    @property
    def is_stored(self) -> bool:
        """It has a storage, or had one until it was closed."""

    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def closed(self) -> bool: ...

    def close(self) -> None: ...
    def leave(self) -> None:
        """This process is about to end: an auto-deleted log goes unless others stay with it."""

    def put(
        self,
        item: object,
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> None: ...
    def put_many(
        self,
        items: Iterable[object],
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> int: ...
    def put_nowait(self, item: object) -> None: ...
    def send(
        self,
        item: object,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None: ...
    def encode(self, item: object) -> tuple[int, bytes]:
        """As it would travel, for send_raw()."""

    def send_raw(
        self,
        kind: int,
        payload: Any,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
        beyond: bool = False,
    ) -> None:
        """A body that was encoded before; `beyond`: also into a queue that has its maxsize."""

    def put_records(
        self,
        kind: int,
        head: bytes,
        items: Any,
        item: int,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        """A message for each `item` bytes of the buffer `items`: `head`, whose length is a multiple of 16,
        then those bytes. An exception's `put` says how many went in."""

    def peek(self, block: bool = True, timeout: float | None = None) -> tuple[int, bytes, int] | None:
        """Kind and payload of the next message, which stays, and how many like it there may be. None: a
        large one, or one that was given back."""

    def take_records(self, kind: int, head: bytes, items: Any, item: int) -> int:
        """Take the next messages as far as they are of this kind, begin with `head` and have `item` bytes
        behind it, which go into the buffer `items`: how many. Never waits."""

    def borrow(self, size: int, block: bool = True, timeout: float | None = None) -> Loan: ...
    def commit(
        self,
        loan: Loan,
        kind: int,
        subject_len: int = 0,
        headers_len: int = 0,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        """Send it: subject, headers and body lie in it behind one another. It stays open if this raises;
        ValueError if it is not open, or was borrowed before a fork."""

    def send_many(
        self,
        items: Iterable[tuple[object, bytes | None, bytes | None, int]],
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        """Tuples (item, subject, headers, ttl_ms)."""

    def flush(self, timeout: float | None = None) -> None:
        """Wait until storage, if there is any, has everything that was put."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...
    def get_nowait(self) -> Any: ...
    def get_many(
        self, limit: int | None = None, block: bool = True, timeout: float | None = None
    ) -> list[Any]: ...
    def group(self) -> Group:
        """The queue's own group."""

    def watch_space(self, timed: bool = False) -> Watch: ...
    def watch_join(self, timed: bool = False) -> Watch: ...

    def open_group(
        self,
        name: str,
        pattern: str = "",
        *,
        policy: int = 0,
        from_start: bool = False,
        lossy: bool = False,
        ends_with_us: bool = False,
        start: tuple[int, int] | None = None,
    ) -> tuple[Group, bool]:
        """Find or make a group. `start`: (position, sequence), with from_start, in a stored log.
        FileExistsError: there is one with other settings. Stalled: somebody was stopped in here, or while he
        wrote to storage."""

    def groups(self) -> list[dict[str, Any]]: ...
    def set_alarm(self, when_ns: int) -> None:
        """CLOCK_REALTIME, ns; 0: none. Wakes waiting calls of every process."""

    def alarm(self) -> int: ...
    def size(self) -> int: ...
    def full(self) -> bool: ...
    def info(self) -> dict[str, Any]: ...
    def task_done(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def shutdown(self, immediate: bool = False) -> None: ...


class Storage(Protocol):
    """What a stored log asks of its storage: `NativeLog.storage`."""

    def after_put(self, durability: str | None, timeout: float | None) -> None:
        """Something was put; wait until it is as durable as it shall be, `timeout` seconds at most. Raises
        Stalled, StorageFailed, with the attribute `put`: 1."""

    def after_settle(self) -> None: ...
    def after_group(self) -> None:
        """One was made, or closed. Raises StorageFailed, Stalled."""

    def handed_out_again(self, group: NativeGroup, messages: list[Any]) -> list[Any]:
        """Those that no transaction has acked whose process died right then."""

    def make_room(self) -> bool:
        """The ring is full of what is not yet in storage. False: of nothing but what is in use."""

    def frames(self, position: int) -> tuple[bytes, int] | None:
        """Frames out of storage, and the position of the first: at or before `position`. Contiguous, and at
        least 64 from there on, or all there are. None: another consumer took them."""

    def payload(self, sequence: int, length: int) -> bytes | None:
        """Of a large frame: so many bytes. None: another consumer took it. Empty: nobody gets it any more, it
        went after this frame was read."""

    def missing_payload(self, sequence: int) -> Exception:
        """There is none, and nobody took it."""

    def flush(self, timeout: float | None = None) -> None: ...

    def find(self, sequence: int, time_ns: int) -> tuple[int, int]:
        """(position, sequence) of the first frame with at least this sequence and time."""

    def keeping_first(self) -> AbstractContextManager[tuple[int, int] | None, bool | None]:
        """(position, sequence) where a new group starts that starts at the beginning, and what it finds there
        stays until the statement ends; None: the ring knows. Raises Stalled."""


class Stored(Protocol):
    """A stored log as its storage sees it: Stored(log, door). See native/src/stored.h."""

    def __init__(self, log: NativeLog, door: NativeLog) -> None: ...
    def entering(self, position: int, timeout: float | None = None) -> AbstractContextManager[bool]:
        """`with stored.entering(position) as lead`: True: it falls to the caller to write, and nobody else
        does meanwhile, until the statement ends, whatever a signal handler raises at which moment. False:
        everything below `position` is in storage. Raises Stalled."""

    def tail(self) -> int: ...
    def durable(self) -> int: ...
    def set_durable(self, position: int) -> None: ...
    def needed(self) -> int | None: ...
    def range(self, position: int, limit: int) -> tuple[memoryview, int, int, int, int] | None: ...
    def sequence_at(self, position: int) -> int: ...
    def payloads(self, frames: memoryview) -> list[tuple[int, memoryview]]: ...
    def copy(self, position: int, size: int) -> bytes | None: ...
    def groups(self) -> list[tuple[bytes, bytes, int, int, int, int, bytes]]: ...
    def restore_group(
        self, name: bytes, pattern: bytes, policy: int, read: int, sequence: int, acked: int, held: bytes
    ) -> None: ...


class NativeLog(Log, Protocol):
    """A log that may be the first of several which make one queue; see ringpost.levels."""

    storage: Storage | None

    def group(self) -> NativeGroup: ...
    def open_group(
        self,
        name: str,
        pattern: str = "",
        *,
        policy: int = 0,
        from_start: bool = False,
        lossy: bool = False,
        ends_with_us: bool = False,
        start: tuple[int, int] | None = None,
    ) -> tuple[NativeGroup, bool]: ...
    def levels(self) -> int:
        """A bit for each further log of this queue."""

    def add_level(self, level: int) -> None: ...
    def listen(self) -> int:
        """For wait_for_bell(), before looking whether there is anything to take from any level."""

    def wait_for_bell(self, heard: int, timeout: float | None = None) -> None:
        """Return when somebody rang since, or after a tenth of a second. Raises Empty."""

    def watch_bell(self, timed: bool = False) -> Watch: ...
    def ring(self) -> None:
        """Wake who waits for the bell."""


class Binding(Protocol):
    """The module itself."""

    NAME: str
    Delivery: type[Delivery]
    Watch: type[Watch]
    Stored: type[Stored]

    def layout_version(self) -> int: ...
    def status_text(self, status: int) -> str: ...
    def subject_matches(self, pattern: str, subject: str) -> bool: ...
    def is_exact(self, item: object, depth: int) -> bool:
        """Does MessagePack give it back as it was, to the type of each part? As far as it is nested `depth`
        times at most: None, bool, int, float, str, bytes, and lists and dicts of these."""

    def hand_out(self, ahead: Any, held: Any) -> Any:
        """The next one of the deque `ahead`, put into the set `held`: no signal handler, no thread sees it in
        neither. None: there is none."""

    def any_ttl(self, messages: list[Any]) -> bool: ...
    def contextmanager(
        self, function: Callable[P, Iterator[T]]
    ) -> Callable[P, AbstractContextManager[T, bool | None]]:
        """As contextlib's. What a signal handler raises is raised in the generator, or outside of the
        statement. (cffi: or on the way from one to the other: then the generator ends with the traceback.)"""

    def frames_from_end(self, data: bytes, count: int) -> int:
        """The offset of the `count`-th last frame; 0 if there are fewer. Raises ValueError."""

    def let_go(self, data: Any) -> bool:
        """These bytes lie in a file that is mapped: what was read of it is not to count as this process's
        memory. False: they do not."""

    def find_frame(self, data: Any, sequence: int, time_ns: int) -> tuple[int, int] | None:
        """(offset, sequence) of the first frame with at least this sequence and time. Raises ValueError."""

    def create(
        self,
        path: str,
        label: str,
        codec: Codec,
        *,
        capacity: int = 0,
        max_messages: int = 0,
        groups: int = 0,
        leases: int = 0,
        broadcast: bool = False,
        keep_history: bool = False,
        auto_delete: bool = False,
        levels: bool = False,
        stored: bool = False,
        log_id: bytes | None = None,
        first_position: int = 0,
        first_sequence: int = 0,
        first_done: int = 0,
    ) -> NativeLog: ...
    def attach(self, path: str, label: str, codec: Codec) -> NativeLog: ...
    def remove(self, path: str) -> bool: ...
    def collect(self, path: str) -> bool: ...
