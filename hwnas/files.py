"""Files that are either the old version or the new one, never half of it, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwnas.errors import HwnasError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends without an error.

    The temporary file keeps the suffix of ``path``, so that writers which go by it work.

    Raises:
        HwnasError: if the folder cannot be written or the disk is full; ``path`` is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise HwnasError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise HwnasError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder: for several files, or one to be tried before it counts.

    All that the block leaves in that folder takes its place beside ``path`` when it ends without an error, ``path``
    itself last. Errors that name the temporary path are told of ``path``.

    Raises:
        HwnasError: if the folder cannot be written or the disk is full; all is then as it was.
    """
    if path.is_dir():
        raise HwnasError(f"cannot write {path}: Is a directory; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.stem}-"))
    except OSError as error:
        raise HwnasError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    temporary = folder / path.name
    try:
        yield temporary
        for written in sorted(folder.iterdir(), key=lambda file: file == temporary):
            written.replace(path.parent / written.name)
    except OSError as error:
        raise HwnasError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    except HwnasError as error:
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
