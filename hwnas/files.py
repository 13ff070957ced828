"""Files that are either the old version or the new one, never half of it, whenever the process is killed."""

from __future__ import annotations

import errno
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
    temporary = _beside(path)
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


def require_writable(path: Path) -> None:
    """Find out whether ``path`` can be written, before that which is to be in it takes long.

    Raises:
        HwnasError: if not.
    """
    if path.is_dir():
        raise HwnasError(f"cannot write {path}: it is a folder; name a file")
    _beside(path).unlink()


def is_leftover(entry: Path, path: Path) -> bool:
    """Whether ``entry`` is what a killed process left that was about to write ``path``."""
    return entry.name.startswith(_prefix(path)) and entry.suffix == path.suffix


def _prefix(path: Path) -> str:
    return f".{path.stem}-"


def _beside(path: Path) -> Path:
    """An empty file of a name of its own in the folder of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=path.suffix)
    except OSError as error:
        raise HwnasError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    os.close(handle)
    return Path(name)


@contextmanager
def atomic_files(path: Path, folder: bool = False) -> Iterator[Path]:
    """A path of the same name in a temporary folder: for several files, or one to be tried before it counts.

    All that the block leaves in that folder takes its place beside ``path`` when it ends without an error, one after
    the other, ``path`` itself last; if one cannot, none does. Errors that name the temporary path are told of ``path``.

    Args:
        path: where to write.
        folder: what is written at ``path`` is a folder; an older one is replaced by it.

    Raises:
        HwnasError: if the place cannot be written or the disk is full; all is then as it was.
    """
    if path.exists() and path.is_dir() != folder:
        raise HwnasError(f"cannot write {path}: there is a {'file' if folder else 'folder'} of that name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.stem}-"))
    except OSError as error:
        raise HwnasError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    temporary = workplace / path.name
    try:
        yield temporary
        older = workplace / "older"
        older.mkdir()
        _move_all(sorted(workplace.iterdir(), key=lambda file: file == temporary), older, path.parent)
    except OSError as error:
        raise HwnasError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    except HwnasError as error:
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _move_all(files: list[Path], older: Path, place: Path) -> None:
    """Move ``files`` but ``older`` to the folder ``place``, or none of them; ``older`` takes what was there before."""
    files = [file for file in files if file != older]
    for file in files:
        there = place / file.name
        if there.exists() and there.is_dir() != file.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{there} is of another kind")
    moved: list[Path] = []
    try:
        for file in files:
            there, saved = place / file.name, older / file.name
            # Folders cannot be replaced, only moved away; files can, and are always there.
            if there.is_dir():
                there.replace(saved)
            elif there.exists():
                shutil.copy2(there, saved)
            moved.append(there)
            file.replace(there)
    except BaseException:
        for there in moved:
            saved = older / there.name
            if saved.exists():
                if saved.is_dir():
                    shutil.rmtree(there, ignore_errors=True)
                saved.replace(there)
            elif there.is_dir():
                shutil.rmtree(there)
            else:
                there.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
