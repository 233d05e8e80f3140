"""Where segments live: /dev/shm/ringpost-UID/BROKER/QUEUE.queue, private directories, safe file names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from urllib.parse import quote, unquote

from ringpost.errors import NotOurs, Status, failure

SUFFIX = ".queue"
FIFO = ".fifo"  # SEGMENT.IIIIIIII.fifo, made by native/src/watch.c
ANONYMOUS = ".anonymous"  # no broker can be named so: leading dots are quoted
_LONGEST = 200  # bytes of a quoted name; file systems allow 255


def root() -> Path:
    """This user's directory. RINGPOST_SHM_DIR replaces /dev/shm."""
    base = os.environ.get("RINGPOST_SHM_DIR") or "/dev/shm"
    return Path(base).absolute() / f"ringpost-{os.geteuid()}"


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


def make_private(path: Path) -> None:
    """Create the directory and its parent as ours alone. Raises NotOurs."""
    for each in (path.parent, path):
        try:
            os.mkdir(each, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise failure(Status.NO_SPACE, "make", "a directory", path=str(each)) from error
        check_private(each)


def check_if_there(path: Path) -> None:
    """As make_private(), without making anything: who may write there may swap what we open."""
    for each in (path.parent, path):
        try:
            check_private(each)
        except FileNotFoundError:
            return


def remove_if_empty(path: Path) -> None:
    """Take the directory and its parent away when nobody keeps anything there any more."""
    for each in (path, path.parent):
        try:
            os.rmdir(each)
        except OSError:  # in use, or gone already
            return


def remove_fifos(path: Path, everything: bool) -> None:
    """What the dead, or somebody who removed a segment by hand, left of descriptors; see watch.h."""
    for fifo in path.glob(f"*{FIFO}"):
        segment = fifo.with_name(fifo.name.removesuffix(FIFO).rpartition(".")[0])
        if everything or not segment.exists():
            fifo.unlink(missing_ok=True)


def check_private(path: Path) -> None:
    """Somebody may have been here before us, in a directory where everybody may write."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        problem = "it is not a directory"
    elif found.st_uid != os.geteuid():
        problem = f"it belongs to uid {found.st_uid}"
    elif found.st_mode & 0o077:
        problem = f"others may enter it (mode {stat.S_IMODE(found.st_mode):o}, not 700)"
    else:
        return
    raise NotOurs(
        errno.EACCES,
        f"{problem}: ringpost keeps queues only in directories of uid {os.geteuid()} with mode "
        "0700; remove it, or set RINGPOST_SHM_DIR",
        str(path),
    )
