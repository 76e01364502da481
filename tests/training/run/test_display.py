"""What a person sees of a run: one line on a terminal of 80 columns, a line now and then in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sdscratch.training.engine.loop import Progress
from sdscratch.training.run import display as display_module
from sdscratch.training.run.display import Display, duration


def progress(step: int, share: float) -> Progress:
    return Progress(step, share, 5000.0, 1234.5, {"step": step, "loss": 0.123456})


def test_a_bar_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    monkeypatch.setattr(display_module, "Console", lambda **options: console)
    display = Display()
    with display:
        display(progress(1_234_567, 0.42))
        drawn = console.render_lines(display.bar.get_renderable(), pad=False)
    text = "".join(segment.text for segment in drawn[0])
    assert len(drawn) == 1
    assert len(text) <= 80
    for word in ("step 1234567", "42%", "loss 0.1235", "1.23e+03 pictures/s", "1:55:05 left"):
        assert word in text


def test_a_log_gets_a_line_at_the_start_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for step in range(1, 101):
            display(progress(step, step / 100))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[1] for line in err.splitlines()] == ["1", "100"]
    with Display(quiet=True) as display:
        display(progress(1, 1.0))
        display.note("a note")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (360_000, "100:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
