"""A real HTTP server on this machine serves a small archive, breaks off, lies and refuses."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.data import div2k
from hwnas.data.div2k import Archive, cache_folder, fetch
from hwnas.data.images import read_image
from hwnas.errors import HwnasError

# Noise does not compress: the archive spans several of the downloader's chunks.
PHOTOS = [np.random.default_rng(i).integers(0, 256, (200, 300, 3), dtype=np.uint8) for i in range(3)]


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def small_div2k() -> bytes:
    photos = {f"DIV2K_small/{i:04}.png": png(photo) for i, photo in enumerate(PHOTOS)}
    return packed({"DIV2K_small/": b"", "DIV2K_small/readme.txt": b"hello", **photos})


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every address and remembers the ranges it was asked for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.break_off_after: int | None = None
        self.supports_ranges = True
        self.status: int | None = None
        self.ranges: list[str | None] = []

    def archive(self, content: bytes | None = None) -> Archive:
        digest = hashlib.md5(self.content if content is None else content).hexdigest()
        return Archive("DIV2K_small", f"http://127.0.0.1:{self.server_port}/DIV2K_small.zip", digest)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        content = self.server.content
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        if not self.server.supports_ranges:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.break_off_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(small_div2k())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    # A proxy of this machine would answer for the server.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def test_images_are_downloaded_and_unpacked_once(server: Server, cache: Path) -> None:
    folder = fetch(server.archive())
    assert folder == cache / "DIV2K_small"
    assert sorted(path.name for path in folder.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    np.testing.assert_array_equal(read_image(folder / "0002.png"), PHOTOS[2])
    assert fetch(server.archive()) == folder
    assert server.ranges == [None]
    assert list(cache.iterdir()) == [folder]


def test_progress_reports_bytes_and_then_files(server: Server) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch(server.archive(), lambda label, done, total: seen.append((label, done, total)))
    size = len(server.content)
    downloading = [(done, total) for label, done, total in seen if label == "downloading DIV2K_small.zip"]
    assert downloading == sorted(downloading)
    assert downloading[-1] == (size, size)
    assert [s for s in seen if s[0] == "unpacking DIV2K_small.zip"] == [
        ("unpacking DIV2K_small.zip", i, 3) for i in (1, 2, 3)
    ]


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, cache: Path) -> None:
    server.break_off_after = len(server.content) // 2
    with pytest.raises(HwnasError, match=r"connection to 127.* broke off; run the same command again to resume"):
        fetch(server.archive())
    have = (cache / "DIV2K_small.zip.part").stat().st_size
    assert 0 < have <= len(server.content) // 2
    server.break_off_after = None
    folder = fetch(server.archive())
    assert server.ranges == [None, f"bytes={have}-"]
    assert len(list(folder.iterdir())) == 3


def test_a_server_that_cannot_resume_sends_it_all_again(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "DIV2K_small.zip.part").write_bytes(b"old beginning")
    server.supports_ranges = False
    assert len(list(fetch(server.archive()).iterdir())) == 3


def test_a_part_that_is_already_complete_is_used(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "DIV2K_small.zip.part").write_bytes(server.content)
    assert len(list(fetch(server.archive()).iterdir())) == 3


def test_a_wrong_checksum_is_refused_and_leaves_nothing_behind(server: Server, cache: Path) -> None:
    with pytest.raises(HwnasError, match=r"cannot be downloaded \(.*checksum differs\); use --data DIR"):
        fetch(server.archive(content=b"something else"))
    assert not list(cache.iterdir())


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:evil.png"])
def test_a_member_that_points_outside_is_refused(server: Server, cache: Path, name: str) -> None:
    server.content = packed({"good.png": png(PHOTOS[0]), name: png(PHOTOS[1])})
    with pytest.raises(HwnasError, match="unsafe file name"):
        fetch(server.archive())
    assert not (cache / "DIV2K_small").exists()
    assert not list(cache.parent.rglob("*evil*"))


def test_what_is_no_zip_is_refused(server: Server, cache: Path) -> None:
    server.content = b"<html>log in to the hotel network</html>"
    with pytest.raises(HwnasError, match="not a sound zip"):
        fetch(server.archive())
    assert not (cache / "DIV2K_small").exists()


def test_a_refusing_server_is_quoted(server: Server) -> None:
    server.status = 404
    with pytest.raises(HwnasError, match=r"\(127\.0\.0\.1:\d+ answers 404\); use --data DIR .* or --data bundled"):
        fetch(server.archive())


def test_without_a_network_the_alternatives_are_named(server: Server) -> None:
    archive = server.archive()
    server.shutdown()
    server.server_close()
    message = r"DIV2K is not in the cache and cannot be downloaded \(no connection to 127.*\); use --data DIR"
    with pytest.raises(HwnasError, match=message):
        fetch(archive)


def test_a_silent_server_is_given_up_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(div2k, "_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(Handler, "do_GET", lambda _: released.wait(5) and None)
    try:
        with pytest.raises(HwnasError, match="does not answer"):
            fetch(server.archive())
    finally:
        released.set()


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(server: Server, cache: Path) -> None:
    cache.touch()
    with pytest.raises(HwnasError, match=r"cannot store DIV2K in .*cache.*; set HWNAS_CACHE"):
        fetch(server.archive())


def test_the_cache_is_the_users_unless_the_environment_says_otherwise(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("HWNAS_CACHE")
    assert cache_folder().name == "hwnas"
