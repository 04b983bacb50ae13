"""Files and folders that appear under their final name whole, or not at all."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from janeox.errors import JaneoxError

RENAME_EXCHANGE = 2  # renameat2(2): swap two names in one step
AT_FDCWD = -100


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path` that takes its name when the block ends without an error.

    An existing `path` stays readable until that moment and is then removed. On an error (a full disk, Ctrl-C)
    the temporary folder is removed and `path` is untouched. After a kill -9 a folder `.NAME.partial` may be left; the
    next call for the same `path` clears it.

    Raises:
        JaneoxError: the disk is full or `path` cannot be written; names the path.
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        _replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _writing_failed(path, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary file name beside `path`; what the block wrote there replaces `path` when it ends well.

    Raises:
        JaneoxError: the disk is full or `path` cannot be written; names the path.
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):  # as where the parent is no folder
            partial.unlink()
        raise _writing_failed(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_name(path: Path) -> Path:
    """Where what will be `path` is written."""
    return path.with_name(f".{path.name}.partial")


def _writing_failed(path: Path, error: OSError) -> JaneoxError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JaneoxError(f"{path}: the disk is full; nothing was changed there. Free some space and run it again")
    return JaneoxError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed there")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(new: Path, path: Path) -> None:
    """Gives folder `new` the name `path`. Where one stands there already, the two swap names in one system call."""
    if not path.exists():
        os.rename(new, path)
        return
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange and exchange(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        shutil.rmtree(new)
        return
    # No such call on this system (macOS, some network disks): two renames, so `path` is missing for an instant.
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        shutil.rmtree(old)
    os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old)
