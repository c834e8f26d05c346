"""One training at a time in a folder: two would write over each other's checkpoint, and cut each other's log.

That happens where a connection broke off, the run did not, and somebody starts it again. The system gives the lock back
when a process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from minimrcnn.errors import DataError

if os.name == "nt":
    import msvcrt

    def _lock(file) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


NAME = "train.lock"


@contextlib.contextmanager
def lock_folder(folder: Path):
    """Have a folder for this process alone until the block ends.

    Raises
    ------
    DataError
        Another one has it.
    """
    path = folder / NAME
    file = open_locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows removes no open file; what stays locks nobody out
            path.unlink(missing_ok=True)
        file.close()


def open_locked(path: Path):
    """The file that is under ``path``, locked; not one that its owner has just removed, which would lock nobody out."""
    while True:
        file = open(path, "ab")
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return file  # a file system that knows no locks: go on without
            file.close()
            raise DataError(
                f"{path.parent}: another training writes into this folder; wait for it, stop it, or name another folder"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            # Windows removes no open file, and on some of its network drives no file is the one it was.
            if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()
