"""What a person sees while they wait: bars that fit the terminal, plain lines in a log, or nothing."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from sdscratch.cli.bars import BarView
from sdscratch.cli.progress import make_view
from sdscratch.cli.view import PlainView, View, rate
from support.cli import sdscratch

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def seen(text: str) -> list[str]:
    """The lines, and states of lines, that a terminal showed."""
    return [
        line.rstrip()
        for line in re.split(r"[\r\n]+|\x1b\[\d*A|\x1b\[2K", text)
        if ESCAPE.sub("", line).strip()
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def at_terminal() -> Iterator[Terminal]:
    """stderr as a terminal of 80 columns."""
    stream = Terminal()
    with patch.object(sys, "stderr", stream), patch.dict(os.environ, COLUMNS="80", TERM="xterm"):
        yield stream


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    assert logging.getLogger("sdscratch").handlers == []


def test_a_log_gets_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with make_view() as view:
        assert type(view) is PlainView
        with view.stage("loading", 3) as advance:
            advance(3)
        with view.stage("denoising", 30, "it") as advance:
            advance(30)
        view.note("seed 1")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"loading: \d+\.\d s\ndenoising: \d+\.\d s, 30 it, [\d.]+ it/s\nseed 1\n", err), err


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with make_view(quiet=True, verbose=True) as view, view.stage("loading", 3) as advance:
        assert type(view) is View
        advance(1)
        view.note("seed 1")
        logging.getLogger("sdscratch.generation.pipeline").warning("odd")
    assert capsys.readouterr() == ("", "")


def test_what_the_library_logs_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("sdscratch.somewhere")
    for verbose in (False, True):
        with make_view(verbose=verbose):
            log.info("computing on %s", "cpu")
            log.warning("odd")
    assert capsys.readouterr().err == "warning: odd\ncomputing on cpu\nwarning: odd\n"


def test_afterwards_the_library_logs_as_it_did(caplog: pytest.LogCaptureFixture) -> None:
    with make_view(quiet=True):
        pass
    logging.getLogger("sdscratch.somewhere").warning("odd")
    assert caplog.messages == ["odd"]


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    with at_terminal() as terminal, make_view() as view:
        assert type(view) is BarView
        with view.stage("denoising 1/2", 30, "it") as advance:
            for done in range(31):
                advance(done)
    last = ESCAPE.sub("", seen(terminal.getvalue())[-1])
    assert re.fullmatch(r"denoising 1/2 +━+ 30/30 [\d.]+ it/s 0:00:00 left 0:00:00", last), last
    assert len(last) == 80


def test_a_stage_without_a_total_leaves_no_trace() -> None:
    with at_terminal() as terminal, BarView() as view, view.stage("starting", None):
        pass
    text = terminal.getvalue()
    assert "starting" in text
    assert re.search(r"\x1b\[1A\x1b\[2K(\x1b\[\?25h)?$", text)  # up one line, and clear it


def test_results_on_stdout_stay_there_while_stderr_is_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with at_terminal() as terminal, BarView() as view, view.stage("denoising", 2, "it"):
        print("outputs/0001-1.png")
    assert capsys.readouterr().out == "outputs/0001-1.png\n"
    assert "outputs" not in terminal.getvalue()


def test_long_notes_are_one_line_and_their_brackets_no_markup() -> None:
    text = "[bold]a dog[/bold] " * 20
    with at_terminal() as terminal, BarView() as view:
        view.note(text)
    assert terminal.getvalue() == f"{text}\n"


def test_a_warning_stands_above_the_bar_that_moves() -> None:
    with at_terminal() as terminal, BarView() as view, view.stage("denoising", 2, "it") as advance:
        advance(1)
        logging.getLogger("sdscratch.generation.pipeline").warning("not finite; trying again in float32")
        advance(0)
        advance(2)
    lines = [ESCAPE.sub("", line) for line in seen(terminal.getvalue())]
    assert "warning: not finite; trying again in float32" in lines
    assert " 2/2 " in lines[-1]


@pytest.mark.parametrize(
    ("speed", "text"),
    [(2.314, "2.31 it/s"), (1.0, "1.00 it/s"), (0.3125, "3.20 s/it"), (1234.5, "1234.50 it/s")],
)
def test_rates_are_readable(speed: float, text: str) -> None:
    assert rate(speed, "it") == text


@pytest.mark.skipif(sys.platform == "win32", reason="has no such terminals")
def test_on_a_real_terminal_bars_fit_and_results_go_to_the_pipe(tiny_model: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    small = [
        "--size",
        "64x64",
        "--steps",
        "6",
        "-b",
        "12",
        "--seed",
        "1",
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    environment |= {"TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sdscratch", "txt2img", "a dog", "-m", str(tiny_model), *small]
    shown = b""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=environment
    ) as running:
        os.close(theirs)
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how Linux says that nobody writes to it any more
            pass
        assert running.stdout is not None
        printed = running.stdout.read().decode().splitlines()
    os.close(ours)
    assert running.returncode == 0
    assert printed == [f"outputs/{index:04d}-{index}.png" for index in range(1, 13)]
    text = shown.decode()
    lines = [ESCAPE.sub("", line) for line in seen(text)]
    assert max(map(len, lines)) <= 80
    for index in range(1, 13):
        done = [line for line in lines if line.startswith(f"denoising {index}/12 ") and " 6/6 " in line]
        assert done, f"no full bar of picture {index}"
        assert re.search(r"━ 6/6 +[\d.]+ (it/s|s/it) \d:\d\d:\d\d left \d:\d\d:\d\d$", done[-1]), done[-1]
        assert any(line.startswith(f"decoding {index}/12 ") for line in lines)
        assert f"seed {index}" in lines
    assert any(line.startswith("loading") and "3/3" in line for line in lines)
    # of the pictures before it nothing is drawn again
    assert text.count("\x1b[1A\x1b[2K\x1b[1A") == 0


def test_plain_stages_when_stderr_is_no_terminal_though_stdout_is(tiny_model: Path, tmp_path: Path) -> None:
    words = ["txt2img", "a dog", "-m", tiny_model, "--size", "64x64", "--steps", 1, "-o", f"{tmp_path}/a.png"]
    result = sdscratch(*words, terminals=["stdout"])
    assert result.lines == [f"{tmp_path}/a.png"]
    assert "\x1b" not in result.stderr
    assert "denoising: " in result.stderr
