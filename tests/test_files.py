from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import atomic_write, make_folder

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NO_LINK = OSError(errno.EPERM, "Operation not permitted")


def write(
    path: Path, data: bytes, then: Callable[[], object] = lambda: None, *, overwrite: bool = False
) -> None:
    """Write `data`, then do something more before the file is complete."""
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(data)
        then()


def raiser(error: BaseException) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


def test_the_file_is_there_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"12")
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".")
        assert Path(file.name) == temporary
    assert path.read_bytes() == b"12"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_is_what_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_data_are_synced_before_the_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    states: list[tuple[bool, int]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        states.append((path.exists(), os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(path, b"12345")
    assert states[0] == (False, 5)
    assert states[1][0]  # then the folder, which holds the name


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("x")])
def test_what_breaks_off_leaves_nothing_and_the_old_file_as_it_was(
    tmp_path: Path, error: BaseException
) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    for path in (tmp_path / "new", old):
        with pytest.raises(type(error)):
            write(path, b"half", raiser(error), overwrite=True)
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
def test_a_refusal_of_the_system_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    monkeypatch.setattr(os, "fsync", raiser(OSError(code, os.strerror(code))))
    with pytest.raises(SdscratchError, match=f"a.png.*{words}") as caught:
        write(tmp_path / "a.png", b"x")
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_an_error_about_a_file_being_read_is_not_explained_as_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "source").open("rb")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_a_file_in_its_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(SdscratchError, match="folder does not exist"):
        write(tmp_path / "no" / "a", b"")
    (tmp_path / "file").touch()
    with pytest.raises(SdscratchError, match="is a file"):
        write(tmp_path / "file" / "a", b"")
    with pytest.raises(SdscratchError, match="too long"):
        write(tmp_path / ("a" * 300), b"")
    with pytest.raises(SdscratchError, match="a folder has that name"):
        write(tmp_path, b"", overwrite=True)


def test_the_longest_name_that_a_file_can_have_works(tmp_path: Path) -> None:
    write(tmp_path / ("a" * 255), b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 255]


def test_an_existing_name_is_refused_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="overwrite"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    write(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_refused_even_if_it_dangles_and_followed_with_overwrite(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with pytest.raises(UsageError, match="exists"):
        write(link, b"new")
    write(link, b"new", overwrite=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", raiser(NO_LINK))
    path = tmp_path / "a"
    with pytest.raises(UsageError, match="exists"):
        write(path, b"mine", lambda: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_file_systems_without_hard_links_are_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", raiser(NO_LINK))
    write(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(os, "replace", raiser(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b", b"2")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_who_want_one_name_exactly_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", raiser(NO_LINK))
    path = tmp_path / "a"
    barrier = threading.Barrier(8)
    won: list[int] = []

    def contend(index: int) -> None:
        try:
            with atomic_write(path) as file:
                file.write(b"%d" % index)
                barrier.wait()
            won.append(index)
        except UsageError:
            pass

    threads = [threading.Thread(target=contend, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == b"%d" % won[0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SdscratchError, match="permission"):
            make_folder(tmp_path)
        with pytest.raises(SdscratchError, match="permission"):
            write(tmp_path / "a", b"")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, read-only even to root")
def test_a_folder_that_not_even_root_can_write_is_refused() -> None:
    with pytest.raises(SdscratchError, match="cannot write into /proc/self"):
        make_folder(Path("/proc/self/task"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_from_outside_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sdscratch.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(10_000_000)); os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a"], capture_output=True, check=False)
    assert b"KeyboardInterrupt" in done.stderr
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from sdscratch.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
WAITING = """
import sys
from pathlib import Path
from sdscratch.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    print(file.name, flush=True)
    sys.stdin.read()
    file.write(b"whole")
"""


def test_what_a_killed_process_left_is_gone_after_the_next_one_and_others_files_are_not(
    tmp_path: Path,
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".sdscratch-")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path / "b")], **pipes, text=True) as other:
        assert other.stdout is not None
        at_work = Path(other.stdout.readline().rstrip("\n"))
        assert list(tmp_path.iterdir()) == [at_work]  # the second swept what the first had left
        (tmp_path / ".sdscratch-0000000000000000.part").write_bytes(b"half")
        write(tmp_path / "c", b"c")
        assert sorted(tmp_path.iterdir()) == [at_work, tmp_path / "c"]
        other.communicate("")
    assert (tmp_path / "b").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]
