"""The `schedule` command: the contract of its JSON, its tables, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sdscratch.cli.schedule import plot, schedule, show_table
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig

app = typer.Typer()
app.command()(schedule)


def run(*arguments: object) -> str:
    """What the command prints; its error is raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def facts(*arguments: object) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json"))


def test_json_holds_the_whole_schedule_with_all_digits() -> None:
    printed = facts("--sampler", "DPM++ 2M Karras", "--steps", 20, "--like", "a1111")
    path = make_sigma_schedule(Schedule(ScheduleConfig()), "dpm++2m", "karras", 20, like="a1111")
    assert set(printed) == {"sigmas", "timesteps", "start_scale", "evaluations"}
    assert tuple(printed["sigmas"]) == path.sigmas
    assert tuple(printed["timesteps"]) == path.timesteps
    assert printed["start_scale"] == path.start_scale
    assert printed["evaluations"] == 20


@pytest.mark.parametrize("like", list(CONVENTIONS))
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_has_a_schedule_in_every_tool(sampler: str, like: str) -> None:
    printed = facts("--sampler", sampler, "--steps", 12, "--like", like)
    assert len(printed["sigmas"]) == len(printed["timesteps"]) + 1
    assert printed["sigmas"] == sorted(printed["sigmas"], reverse=True)
    assert all(0 <= timestep <= 999 for timestep in printed["timesteps"])
    assert printed["start_scale"] >= printed["sigmas"][0]


def test_tools_differ_as_they_do() -> None:
    def sigmas(like: str, *more: object) -> list[float]:
        return facts("--sampler", "euler", "--scheduler", "beta", "--steps", 10, "--like", like, *more)[
            "sigmas"
        ]

    assert sigmas("comfyui")[1] == pytest.approx(11.5428, abs=1e-3)
    assert sigmas("forge")[1] == pytest.approx(13.9278, abs=1e-3)
    assert len(sigmas("a1111", "--strength", 0.5)) == 7  # one step more than half of them
    assert len(sigmas("comfyui", "--strength", 0.5)) == 11  # always as many as asked for
    assert len(sigmas("diffusers", "--strength", 0.5)) == 6


def test_start_scale_of_image_to_image_is_the_first_sigma() -> None:
    printed = facts("--sampler", "euler", "--steps", 20, "--strength", 0.5)
    assert printed["start_scale"] == printed["sigmas"][0] < 3


def test_evaluations_are_those_of_the_sampler() -> None:
    assert facts("--sampler", "heun", "--steps", 10)["evaluations"] == 19
    assert facts("--sampler", "dpm adaptive")["evaluations"] is None
    to_least = facts("--sampler", "heun", "--steps", 10, "--scheduler", "kl_optimal", "--like", "a1111")
    assert to_least["sigmas"][-1] > 0
    assert to_least["evaluations"] == 20


def test_zero_terminal_snr_raises_the_first_sigma() -> None:
    plain, zero = (facts("--sampler", "euler", *more)["sigmas"][0] for more in ((), ("--zero-snr",)))
    assert plain == pytest.approx(14.6146, abs=1e-3)
    assert zero == pytest.approx(4518.76, abs=0.1)


def test_sigmas_of_one_s_own() -> None:
    printed = facts("--sampler", "euler", "--sigmas", "14.6, 3, 0.5, 0", "--prediction", "v")
    assert printed["sigmas"] == [14.6, 3.0, 0.5, 0.0]
    assert len(printed["timesteps"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sigmas", "14.6, 3, 5, 0"), "fall from step to step.*5 comes after 3"),
        (("--sigmas", "3, 3, 0"), "3 comes after 3"),
        (("--sigmas", "3"), "two noise levels"),
        (("--sigmas", "3, x"), "must be numbers"),
        (("--sigmas", "nan, 0"), "must fall"),
        (("--sigmas", "3, -1"), "stay above 0"),
        (("--sigmas", "3, 0", "--strength", "0.5"), "leave --scheduler and --strength out"),
        (("--steps", "0"), "from 1 to 1000"),
        (("--steps", "1001"), "from 1 to 1000"),
        (("--strength", "1.5"), "from 0 to 1"),
        (("--strength", "nan"), "from 0 to 1"),
        (("--sampler", "best"), "no sampler is called 'best'"),
        (("--scheduler", "best"), "no scheduler is called 'best'"),
        (("--like", "photoshop"), "no tool is called 'photoshop'"),
        (("--prediction", "x"), "no prediction is called 'x'"),
        (("--scheduler", "leading", "--like", "a1111"), "a1111 has no scheduler leading"),
        (("--scheduler", "kl_optimal", "--steps", "1", "--like", "comfyui"), "2 steps or more"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(*arguments)


def test_strength_0_runs_nothing() -> None:
    for like in ("sdscratch", "comfyui"):
        printed = facts("--sampler", "euler", "--strength", 0, "--like", like)
        assert printed["timesteps"] == []
        assert printed["evaluations"] == 0


def test_lines_and_tables_show_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("--sampler", "euler", "--steps", 5).splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["1", "2", "3", "4", "5", "end"]
    assert "The network is asked 5 times." in lines
    path = make_sigma_schedule(Schedule(ScheduleConfig()), "euler", "karras", 5)
    show_table(path, None)
    shown = capsys.readouterr().out
    assert "█" in shown
    assert "14.6146" in shown
    assert "as often as the error needs" in shown


def test_the_plot_falls_from_left_to_right() -> None:
    columns = plot([10.0, 2.0, 0.1, 0.0])
    assert [line.rstrip()[:1] for line in columns] == ["█"] * 8
    assert [sum(len(line) > x and line[x] != " " for line in columns) for x in range(3)] == [8, 6, 1]
    assert len(plot([float(100 - i) for i in range(100)])[-1]) == 60
    assert plot([1.0, 0.0]) == []


def test_torch_is_not_imported() -> None:
    program = (
        "import sys\nfrom sdscratch.cli.app import main\n"
        "sys.argv = ['sdscratch', 'schedule', '--sampler', 'unipc', '--json']\n"
        "try: main()\nexcept SystemExit as end: sys.exit(99 if 'torch' in sys.modules else end.code)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
