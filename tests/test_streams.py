"""A standard stream that is closed is as the null device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes streams")


def shell(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command line in which SD stands for sdscratch."""
    program = f"{sys.executable} -m sdscratch"
    return subprocess.run(
        ["sh", "-c", command.replace("SD", program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-"])
def test_info_and_tokens_run_with_closed_streams(tmp_path: Path, closed: str) -> None:
    for command in ("SD info default", "SD tokens cat"):
        result = shell(tmp_path, f"{command} {closed}")
        assert (result.returncode, result.stderr) == (0, "")
        assert bool(result.stdout) is (">&-" not in closed.replace("2>&-", ""))


def test_errors_have_their_exit_code_with_stderr_closed(tmp_path: Path) -> None:
    assert shell(tmp_path, "SD info nosuch 2>&-").returncode == 3


def test_a_picture_goes_into_its_file_and_nothing_else_does(tmp_path: Path) -> None:
    draw = "SD txt2img cat --seed 1 --steps 1 -q"
    assert shell(tmp_path, f"{draw} -o a.png").returncode == 0
    assert shell(tmp_path, f"{draw} -o b.png <&- >&- 2>&-").returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_closed_stdin_is_an_empty_one(tmp_path: Path) -> None:
    result = shell(tmp_path, "SD txt2img - --steps 1 -o a.png <&-")
    assert result.returncode == 2
    assert "stdin is empty" in result.stderr
