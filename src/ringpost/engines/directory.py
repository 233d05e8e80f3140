"""Where segments live: /dev/shm/ringpost-UID/BROKER/QUEUE.queue, private directories, safe file names.

A group's: /dev/shm/ringpost-group-GID/BROKER/QUEUE.queue.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from ringpost import ownership
from ringpost.engines.access import PRIVATE, Access
from ringpost.engines.surroundings import check_surroundings
from ringpost.errors import NotOurs, Status, StorageFailed, failure

SUFFIX = ".queue"
_FIFO = re.compile(r"(.*)\.[0-9a-f]{8}\.fifo(\.[0-9a-f]{16}\.new)?")  # made by native/src/watch.c
ANONYMOUS = ".anonymous"  # no broker can be named so: leading dots are quoted
_ATTEMPTS = 10
_PAUSE = 0.002  # seconds
BEING_MADE = ".new"  # behind the names of files
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.new")  # made by make_one()
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 200  # bytes of a quoted name; file systems allow 255


def base() -> Path:
    """RINGPOST_SHM_DIR replaces /dev/shm."""
    return Path(os.environ.get("RINGPOST_SHM_DIR") or "/dev/shm").absolute()


def root(access: Access = PRIVATE) -> Path:
    """The directory of this user, or of a group."""
    return base() / access.name


def check_base(place: Path) -> None:
    """What base() says: is it a directory that we may enter? Raises StorageFailed, NotOurs."""
    is_said = bool(os.environ.get("RINGPOST_SHM_DIR"))
    where = "$RINGPOST_SHM_DIR names" if is_said else "shared memory lies in"
    other = "set RINGPOST_SHM_DIR to another directory"
    if not place.exists():
        make = "make it" if is_said else "mount a tmpfs"
        raise StorageFailed(
            errno.ENOENT, f"{where} a directory that does not exist: {make}, or {other}", str(place)
        )
    if not place.is_dir():
        raise StorageFailed(errno.ENOTDIR, f"{where} something that is not a directory: {other}", str(place))
    if not os.access(place, os.X_OK, effective_ids=True):
        raise NotOurs(
            errno.EACCES,
            f"{where} a directory that {ownership.user(os.geteuid())} may not enter: open it, or {other}",
            str(place),
        )


def file_name(name: str, what: str) -> str:
    """A name that any file system takes, and that names nothing else. Raises ValueError, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} is a str, not {type(name).__qualname__}")
    try:
        quoted = quote(name, safe=" ")
    except UnicodeEncodeError as error:
        raise ValueError(f"the name of a {what} is not valid Unicode: {error}") from None
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if not quoted or len(quoted) > _LONGEST:
        raise ValueError(f"the name of a {what} has 1 to {_LONGEST} bytes, this one {len(quoted)}")
    return quoted


def original_name(quoted: str) -> str:
    """The inverse of file_name()."""
    return unquote(quoted)


def make(path: Path, access: Access = PRIVATE) -> None:
    """Create the directory and its parent for those alone who may use them. Raises NotOurs, SegmentFull,
    StorageFailed."""
    above = path.parent.parent
    check_base(above)
    check_surroundings(above, access.gid)
    for attempt in range(_ATTEMPTS):
        try:
            make_one(path.parent, access)
            return make_one(path, access)
        except FileNotFoundError:
            if attempt + 1 == _ATTEMPTS or not above.is_dir():
                raise  # else somebody found it empty just now, and removed it
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise failure(Status.NO_SPACE, "make", "a directory", path=str(path)) from error


def make_one(path: Path, access: Access, fill: Callable[[Path], None] | None = None) -> None:
    """A directory has its mode and its group, and what `fill` puts into it (files), before it has its name:
    nobody ever sees less. Raises NotOurs: there is another one."""
    if not os.path.lexists(path):
        access.check_member()
        remove_unfinished(path.parent)
        with _unfinished(path) as made:
            try:
                if fill is not None:
                    fill(made)
                if access.gid is not None:
                    for each in (made, *made.iterdir()):
                        os.chown(each, -1, access.gid)
                os.chmod(made, access.directory_mode)
                os.rename(made, path)  # in place of an empty directory at most, which somebody made just now
            except OSError as error:
                remove_tree(made)
                if not os.path.lexists(path) or error.errno == errno.ENOSPC:
                    raise
    access.check(path, shown=str(path))


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A new directory beside `path`. It is locked, so that nobody takes it for what the dead left."""
    while True:
        made = path.with_name(f".{uuid.uuid4().hex}.new")
        os.mkdir(made, 0o700)
        try:
            here = _lock_new(made)
        except BaseException:
            remove_tree(made)
            raise
        if here is not None:
            break
    try:
        yield made
    finally:
        close_locked(here)


def _lock_new(made: Path) -> int | None:
    """None: somebody found it unlocked, and removes it."""
    try:
        os.chmod(made, 0o700)
        here = os.open(made, _DIRECTORY)
    except FileNotFoundError:
        return None
    locked.add(here)
    try:
        fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        close_locked(here)
        return None
    except OSError:
        return here  # no locks here: who cannot lock it removes nothing
    if leads_to(made, here):
        return here
    close_locked(here)
    return None


def remove_unfinished(path: Path) -> None:
    """What makers left in the directory `path` who died. Only what is this user's: others see to theirs."""
    try:
        names = os.listdir(path)
    except OSError:
        return
    for name in names:
        if _UNFINISHED.fullmatch(name):
            with contextlib.suppress(OSError):
                _remove_if_unlocked(path / name)


def _remove_if_unlocked(path: Path) -> None:
    here = os.open(path, _DIRECTORY)
    locked.add(here)
    try:
        if os.fstat(here).st_uid != os.geteuid():
            return
        fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if leads_to(path, here):  # else it has its name by now
            for each in os.listdir(here):
                os.unlink(each, dir_fd=here)
            os.rmdir(path)
    finally:
        close_locked(here)


def leads_to(path: Path, here: int) -> bool:
    """Is the file, or directory, that is open there the one with this name?"""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(here))
    except FileNotFoundError:
        return False


locked: set[int] = set()  # descriptors


def close_locked(here: int, unlock: Callable[[], object] | None = None) -> None:
    """Unlocked first: a child that was forked just now has the lock, too.

    Args:
        unlock: what it was locked with, if it is not lock_within()'s.
    """
    if here in locked:  # else we are the child of who locked it
        locked.discard(here)
        with contextlib.suppress(OSError):
            unlock() if unlock is not None else fcntl.flock(here, fcntl.LOCK_UN)
        os.close(here)


def lock_within(here: int, seconds: float) -> bool:
    """Be the one who has a directory's lock, while its descriptor is open. False: somebody keeps it.

    Only for directories that nobody else may open: for this lock reading is enough.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)


def _let_go() -> None:
    """In a forked child, which would keep its parent's locks."""
    while locked:
        os.close(locked.pop())


os.register_at_fork(after_in_child=_let_go)


def make_empty_file(path: Path, access: Access) -> None:
    """For who would make it with a mode of the umask's."""
    path.touch(0o600, exist_ok=False)
    path.chmod(access.file_mode)


def make_file(path: Path, mode: int, fill: Callable[[int], object] = lambda file: None) -> None:
    """If there is none. It has its mode, and what `fill` writes to it, before it has its name: what a death
    leaves is made anew. Who calls is the only one."""
    if os.path.lexists(path):
        return
    made = path.with_name(path.name + BEING_MADE)
    made.unlink(missing_ok=True)  # its maker died
    file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fill(file)
        os.fchmod(file, mode)
        os.rename(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def write(file: int, data: bytes) -> None:
    """All of it, where the system takes it bit by bit."""
    while data:
        data = data[os.write(file, data) :]


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def check_if_there(path: Path, access: Access = PRIVATE) -> None:
    """As make(), without making anything: who may write there may swap what we open."""
    above = path.parent.parent
    if not above.exists():
        return
    check_base(above)
    check_surroundings(above, access.gid)
    for each in (path.parent, path):
        try:
            access.check(each, shown=str(each))
        except FileNotFoundError:
            return


@contextmanager
def opened(path: Path, access: Access = PRIVATE, readable: bool = False) -> Iterator[Path]:
    """The directory by a name that stays its own, whatever happens to `path` meanwhile.

    Raises NotOurs, FileNotFoundError.
    """
    here = open_directory(path, access, readable)
    try:
        yield name_of(here)
    finally:
        os.close(here)


def open_directory(path: Path, access: Access = PRIVATE, readable: bool = False) -> int:
    """Without following a link, and looked at through its descriptor."""
    try:
        here = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        access.check(path, shown=str(path), readable=readable)  # says why
        raise
    try:
        access.check(here, shown=str(path), readable=readable)
    except BaseException:
        os.close(here)
        raise
    return here


def name_of(descriptor: int) -> Path:
    """A path that leads to what is open."""
    return Path(f"/proc/self/fd/{descriptor}")


def remove_if_empty(path: Path) -> None:
    """Take the directory and its parent away when nobody keeps anything there any more."""
    remove_unfinished(path.parent.parent)
    for each in (path, path.parent):
        remove_unfinished(each)
        try:
            os.rmdir(each)
        except OSError:  # in use, or gone already
            return


def remove_fifos(path: Path, everything: bool, access: Access = PRIVATE) -> None:
    """What the dead, or somebody who removed a segment by hand, left of descriptors; see watch.h."""
    try:
        with opened(path, access) as here:
            for fifo in here.iterdir():
                made_for = _FIFO.match(fifo.name)
                if made_for and fifo.is_fifo() and (everything or not (here / made_for[1]).exists()):
                    fifo.unlink(missing_ok=True)
    except FileNotFoundError:
        return
