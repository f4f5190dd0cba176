"""Files that are whole or not there: written beside their name, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dirnet_convert.errors import DirnetError

# What readers of damaged files raise, whatever the format: their own errors and the system's come on top.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, renamed to ``path`` when the block ends without an error.

    Raises:
        DirnetError: the folder cannot be written, or the disk is full; what stood at ``path`` is untouched.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        yield part
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        # mkstemp makes private files; a run folder is as readable as the process's other files.
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DirnetError(
                f"No space left to write {path}; free some disk space and run again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DirnetError(
                f"Cannot write {path}: {error.strerror}; choose a folder you may write to."
            ) from error
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise DirnetError(f"Cannot write {path}: {error.strerror}; choose another place.") from error
        raise
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as part:
        part.write_bytes(data)


def lasting_path(path: Path) -> str:
    """Return ``path`` as a run keeps it: absolute, so that later commands find it from any folder."""
    return str(path.expanduser().resolve())
