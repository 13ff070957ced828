"""Files that are whole or not there, on a disk that is full too."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.errors import HwnasError, UsageError
from hwnas.files import atomic_files, atomic_path, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new: ü")
    assert path.read_text(encoding="utf-8") == "new: ü"
    assert names(tmp_path) == ["a.txt"]


def test_the_folder_is_made_and_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "image.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == path.parent
        assert not path.exists()
        temporary.write_bytes(b"png")
    assert names(path.parent) == ["image.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_keeps_the_old_file_and_leaves_no_temporary_one(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_several_files_take_their_places_together(tmp_path: Path) -> None:
    path = tmp_path / "some" / "model.xml"
    with atomic_files(path) as temporary:
        assert temporary.name == "model.xml"
        temporary.write_text("graph")
        temporary.with_suffix(".bin").write_text("weights")
        assert not path.exists()
    assert names(path.parent) == ["model.bin", "model.xml"]
    assert path.read_text() == "graph"


def test_what_others_look_for_is_moved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two moves, an export may leave weights without their graph, and no graph without its weights."""
    moved, move = [], Path.replace

    def replace(self: Path, target: Path) -> Path:
        moved.append(Path(target).name)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with atomic_files(tmp_path / "b.xml") as temporary:
        for name in ("a.bin", "b.xml", "c.json"):
            (temporary.parent / name).write_text(name)
    assert moved == ["a.bin", "c.json", "b.xml"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "model.mlpackage"
    for content in ("old", "new"):
        with atomic_files(path, folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
        assert names(tmp_path) == ["model.mlpackage"] and names(path) == [content]
    with pytest.raises(HwnasError), atomic_files(path, folder=True) as temporary:
        temporary.mkdir()
        raise HwnasError("refused")
    assert names(tmp_path) == ["model.mlpackage"] and names(path) == ["new"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, HwnasError, OSError])
def test_an_error_among_several_files_keeps_all_the_old_ones(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    for old in (path, path.with_suffix(".bin")):
        old.write_text("old")
    expected = HwnasError if error is OSError else error
    with pytest.raises(expected), atomic_files(path) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".bin").write_text("new")
        raise error
    assert names(tmp_path) == ["model.bin", "model.xml"]
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}


def test_if_one_of_several_files_cannot_be_moved_none_is(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("old")
    path.with_suffix(".bin").write_text("old")
    # In the way of the second, after the first has been moved.
    (tmp_path / "model.dat").mkdir()
    (tmp_path / "model.dat" / "thesis.txt").write_text("precious")
    with pytest.raises(HwnasError, match="cannot write .*of another kind"), atomic_files(path) as temporary:
        for suffix in (".bin", ".dat", ".xml"):
            temporary.with_suffix(suffix).write_text("new")
    assert names(tmp_path) == ["model.bin", "model.dat", "model.xml"]
    assert path.read_text() == path.with_suffix(".bin").read_text() == "old"
    assert names(tmp_path / "model.dat") == ["thesis.txt"]


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_moves_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    path, left, move = tmp_path / "model.mlpackage", [fails], Path.replace

    def write(content: str) -> None:
        with atomic_files(path, folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
            for name in ("report.json", "a.json"):
                (temporary.parent / name).write_text(content)

    def replace(self: Path, target: Path) -> Path:
        # What is written counts, not what is saved or brought back.
        if target.parent == tmp_path and self.parent.name != "older":
            left[0] -= 1
            if not left[0]:
                raise PermissionError(13, "Permission denied")
        return move(self, target)

    write("old")
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(HwnasError, match="cannot write .*Permission denied"):
        write("new")
    assert names(tmp_path) == ["a.json", "model.mlpackage", "report.json"]
    assert names(path) == ["old"]
    assert {(tmp_path / name).read_text() for name in ("a.json", "report.json")} == {"old"}


def test_errors_of_several_files_name_the_place_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    with pytest.raises(UsageError, match=f"^{path} is damaged$"), atomic_files(path) as temporary:
        raise UsageError(f"{temporary} is damaged")
    path.mkdir()
    with pytest.raises(HwnasError, match="cannot write .*there is a folder of that name"), atomic_files(path):
        pytest.fail("the block was entered")
    (tmp_path / "file").write_text("")
    with pytest.raises(HwnasError, match="cannot write .*choose another folder"), atomic_files(tmp_path / "file" / "m"):
        pytest.fail("the block was entered")


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HwnasError, match=r"cannot write .*file/a\.txt: .*choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HwnasError, match=r"cannot write .*folder: "):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["file", "folder"]


WRITE = """
import sys
from pathlib import Path
from hwnas.errors import HwnasError
from hwnas.files import write_text
try:
    write_text(Path(sys.argv[1]), "x" * 1_000_000)
except HwnasError as error:
    print(error)
    sys.exit(7)
"""


def write_a_megabyte(path: Path, prefix: tuple[str, ...] = (), largest: int | None = None) -> str:
    """What a process prints that tries to; it must fail with `HwnasError`."""

    def limit() -> None:
        assert largest is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    done = subprocess.run(
        [*prefix, sys.executable, "-c", WRITE, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        preexec_fn=limit if largest else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    return done.stdout


def test_a_file_larger_than_allowed_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    message = write_a_megabyte(path, largest=100_000)
    assert f"cannot write {path}: File too large; free some space or choose another folder" in message
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of 256 kB takes the right to mount one")
    try:
        path = disk / "a.txt"
        path.write_text("old")
        message = write_a_megabyte(path)
        assert f"cannot write {path}: No space left on device; free some space" in message
        assert path.read_text() == "old"
        assert names(disk) == ["a.txt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
