"""DIV2K, the data set that super-resolution papers train on, fetched once into a cache.

Agustsson and Timofte, "NTIRE 2017 challenge on single image super-resolution" (CVPR workshops 2017): 800
training and 100 validation photographs of 2K resolution, 4 GB in all. Downloads of that size get interrupted,
so they go on where they stopped, and count only once their checksum agrees.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import urlsplit

from hwnas.data.images import IMAGE_SUFFIXES
from hwnas.errors import HwnasError

# What is being done, how much of it is done, how much there is (0 where nobody knows).
Progress: TypeAlias = Callable[[str, int, int], None]

_INSTEAD = "use --data DIR with your own photographs or --data bundled"
_TIMEOUT_SECONDS = 30
# An interrupted read loses its unfinished chunk, so chunks are small.
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip of images; ``name`` is the folder it becomes in the cache."""

    name: str
    url: str
    md5: str


TRAIN = Archive(
    name="DIV2K_train_HR",
    url="http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
    md5="bdc2d9338d4e574fe81bf7d158758658",
)
VALID = Archive(
    name="DIV2K_valid_HR",
    url="http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
    md5="9fcdda83005c5e5997799b69f955ff88",
)


def cache_folder() -> Path:
    """Where downloads and prepared images are kept: ``HWNAS_CACHE``, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("HWNAS_CACHE") or pooch.os_cache("hwnas"))


def fetch(archive: Archive, progress: Progress | None = None) -> Path:
    """The folder of an archive's images, downloaded and unpacked unless the cache has it.

    Args:
        archive: `TRAIN` or `VALID`.
        progress: called with bytes while downloading and with files while unpacking.

    Raises:
        HwnasError: if the archive cannot be had, is not what its checksum says, or cannot be stored.
    """
    folder = cache_folder() / archive.name
    if not folder.is_dir():
        packed = _download(archive, folder.parent, progress)
        try:
            _unpack(packed, folder, progress)
        except OSError as error:
            raise _cannot_store(folder.parent, error) from error
        packed.unlink()
    return folder


class ResumingDownload:
    """A pooch downloader that collects in ``part`` and, if that exists, asks only for what is missing."""

    def __init__(self, part: Path, label: str, progress: Progress | None) -> None:
        self.part = part
        self.label = label
        self.progress = progress

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        import requests

        done = self.part.stat().st_size if self.part.exists() else 0
        # Compression on the way would make the ranges those of another file.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            # 416: there is nothing beyond what we have; the checksum judges whether that is the file.
            if response.status_code != requests.codes.requested_range_not_satisfiable:
                response.raise_for_status()
                if response.status_code != requests.codes.partial_content:
                    done = 0
                total = done + int(response.headers.get("Content-Length", 0))
                with self.part.open("ab" if done else "wb") as file:
                    for chunk in response.iter_content(_CHUNK_BYTES):
                        file.write(chunk)
                        done += len(chunk)
                        if self.progress is not None:
                            self.progress(self.label, done, total)
        self.part.replace(output_file)


def _download(archive: Archive, cache: Path, progress: Progress | None) -> Path:
    import pooch
    import requests

    # We report progress ourselves; pooch's own lines would break up a progress bar.
    pooch.get_logger().setLevel("WARNING")
    name = f"{archive.name}.zip"
    part = cache / f"{name}.part"
    try:
        return Path(
            pooch.retrieve(
                archive.url,
                known_hash=f"md5:{archive.md5}",
                fname=name,
                path=cache,
                downloader=ResumingDownload(part, f"downloading {name}", progress),
            )
        )
    except requests.RequestException as error:
        resume = "; run the same command again to resume the download" if part.exists() else ""
        raise _unavailable(f"{_reason(error, archive.url)}{resume}") from error
    except ValueError as error:
        raise _unavailable(f"{archive.url} is not the published file: its checksum differs") from error
    except OSError as error:
        raise _cannot_store(cache, error) from error


def _reason(error: Exception, url: str) -> str:
    """One clause for an exception of requests, whose own texts are nested reprs."""
    import requests

    host = urlsplit(url).netloc
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{host} answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"{host} does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection to {host} broke off"
    return f"no connection to {host}"


def _unavailable(reason: str) -> HwnasError:
    return HwnasError(f"DIV2K is not in the cache and cannot be downloaded ({reason}); {_INSTEAD}")


def _cannot_store(cache: Path, error: OSError) -> HwnasError:
    reason = error.strerror or error
    return HwnasError(f"cannot store DIV2K in {cache}: {reason}; set HWNAS_CACHE to a folder with 10 GB free")


def _unpack(packed: Path, folder: Path, progress: Progress | None) -> None:
    """Write the image members of a zip to ``folder``, flat; the folder appears complete or not at all."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        with zipfile.ZipFile(packed) as archive:
            members = [m for m in archive.infolist() if _is_image(m)]
            for i, member in enumerate(members, start=1):
                with (
                    archive.open(member) as source,
                    (temporary / PurePosixPath(member.filename).name).open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
                if progress is not None:
                    progress(f"unpacking {packed.name}", i, len(members))
        temporary.chmod(0o755)
        temporary.replace(folder)
    except zipfile.BadZipFile as error:
        raise _unavailable(f"{packed.name} is not a sound zip file: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.name:
        raise _unavailable(f"the archive holds the unsafe file name '{member.filename}'")
    return not member.is_dir() and path.suffix.lower() in IMAGE_SUFFIXES
