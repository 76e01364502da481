from __future__ import annotations

import errno
import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.outputs import plan_outputs
from sdscratch.images import read_picture, read_records, save_picture
from support.pictures import gradient, record


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(output: str | None, *seeds: int, overwrite: bool = False) -> list[str | None]:
    plan = plan_outputs(output, seeds, overwrite=overwrite)
    return [plan.save(index, gradient()) for index in range(len(seeds))]


def tree() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_pictures_are_numbered_in_outputs_by_default() -> None:
    assert saved(None, 5, 6) == ["outputs/0001-5.png", "outputs/0002-6.png"]
    assert saved(None, 5) == ["outputs/0003-5.png"]
    assert tree() == ["outputs/0001-5.png", "outputs/0002-6.png", "outputs/0003-5.png"]


def test_the_next_number_follows_the_highest_and_other_files_do_not_count() -> None:
    Path("outputs").mkdir()
    for name in ("0007-1.png", "0003-2.png", "2024-01-02.png", "99999.png", "9999-1.jpg", "note.txt"):
        Path("outputs", name).touch()
    assert saved(None, 5) == ["outputs/0008-5.png"]
    Path("outputs/9999-3.png").touch()
    assert saved(None, 5, 6) == ["outputs/10000-5.png", "outputs/10001-6.png"]


@pytest.mark.parametrize("output", ["pics/", "./pics/", "a/b/pics/", "a.png/"])
def test_a_name_that_ends_in_a_slash_is_a_folder_and_is_made(output: str) -> None:
    assert saved(output, 1) == [f"{output}0001-1.png"]


def test_an_existing_folder_is_one_without_a_slash() -> None:
    Path("pics.png").mkdir()
    assert saved("pics.png", 1) == ["pics.png/0001-1.png"]
    assert saved(".", 2) == ["./0001-2.png"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("./a.jpg", "JPEG"), ("b/c.jpeg", "JPEG"), ("A.WEBP", "WEBP")]
)
def test_a_file_name_is_taken_as_it_was_asked_for(name: str, kind: str) -> None:
    assert saved(name, 1) == [name]
    with Image.open(name) as image:
        assert image.format == kind


def test_several_pictures_under_one_name_are_numbered() -> None:
    assert saved("./x/a.b.png", 1, 2, 3) == ["./x/a.b-1.png", "./x/a.b-2.png", "./x/a.b-3.png"]
    assert tree() == ["x/a.b-1.png", "x/a.b-2.png", "x/a.b-3.png"]


def test_the_record_is_saved_with_the_picture() -> None:
    plan_outputs("a.png", [7]).save(0, gradient(), record())
    assert read_records("a.png").record == record()


def test_a_dash_writes_png_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(stream))
    assert saved("-", 1) == [None]
    assert Image.open(stream).tobytes() == gradient().tobytes()
    assert not tree()


@pytest.mark.parametrize("output", ["", "a", "a.gif", ".png", "pics/a", "a.png.bak"])
def test_an_unknown_suffix_is_a_wrong_use(output: str) -> None:
    with pytest.raises(UsageError, match=r"ends neither in \.png, .*\.webp, nor in / for a folder"):
        plan_outputs(output, [1])
    assert not list(Path().iterdir())


def test_several_pictures_do_not_go_to_standard_output() -> None:
    with pytest.raises(UsageError, match="one picture only"):
        plan_outputs("-", [1, 2])


def test_an_existing_file_is_refused_before_any_work_unless_told() -> None:
    Path("a-2.png").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"a-2\.png exists already"):
        plan_outputs("a.png", [1, 2])
    assert saved("a.png", 1) == ["a.png"]
    assert saved("a.png", 1, 2, overwrite=True) == ["a-1.png", "a-2.png"]
    assert read_picture("a-2.png").size == gradient().size
    Path("b.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        plan_outputs("b.png", [1])


def test_a_file_that_appears_during_the_work_is_not_overwritten() -> None:
    plan = plan_outputs("a.png", [1])
    Path("a.png").write_bytes(b"theirs")
    with pytest.raises(UsageError, match="exists already"):
        plan.save(0, gradient())
    assert Path("a.png").read_bytes() == b"theirs"


def test_a_folder_with_a_pictures_name_is_refused_even_with_overwrite() -> None:
    Path("a-1.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        plan_outputs("a.png", [1, 2], overwrite=True)


@pytest.mark.parametrize("output", ["file/a.png", "file/", "file/pics/", f"{'a' * 300}.png", f"{'a' * 300}/"])
def test_what_cannot_be_written_is_refused_before_any_work(output: str) -> None:
    Path("file").touch()
    with pytest.raises(SdscratchError, match="cannot write") as caught:
        plan_outputs(output, [1])
    assert caught.value.exit_code == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, read-only even to root")
@pytest.mark.parametrize("output", ["/proc/self/task/", "/proc/self/task/a.png", "/proc/pics/"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(output: str) -> None:
    with pytest.raises(SdscratchError, match="cannot write into") as caught:
        plan_outputs(output, [1])
    assert caught.value.exit_code == 1


def test_a_folder_that_goes_away_during_the_work_is_one_sentence() -> None:
    plan = plan_outputs("pics/", [1])
    Path("pics").rmdir()
    with pytest.raises(SdscratchError, match="folder does not exist"):
        plan.save(0, gradient())


def test_runs_side_by_side_never_share_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # Locks belong to open files: threads that each open the folder are as good as processes.
    def slow(*arguments: Any, **options: Any) -> None:
        time.sleep(0.05)
        save_picture(*arguments, **options)

    monkeypatch.setattr("sdscratch.generation.outputs.save_picture", slow)
    barrier = threading.Barrier(4)

    def run(seed: int) -> None:
        plan = plan_outputs("pics/", [seed, seed + 1])
        barrier.wait()
        for index in range(2):
            plan.save(index, gradient())

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (10, 20, 30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(path.name.split("-")[0] for path in Path("pics").iterdir())
    assert numbers == [f"{number:04d}" for number in range(1, 9)]


def test_a_folder_that_cannot_be_listed_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SdscratchError, match="cannot write into pics/: permission is denied"):
        plan_outputs("pics/", [1])


def test_neither_pictures_nor_plans_import_torch() -> None:
    program = "import sys, sdscratch.images, sdscratch.generation.outputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
