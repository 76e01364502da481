"""The comparison with peers: its arithmetic and its tables, on numbers made up and on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sdscratch.bench.peers.report import Measured, Report, distances, markdown, ratio, targets, text
from sdscratch.bench.peers.work import Inputs

MACHINE = {"processor": "a processor", "turns": 4}
WORK = {"threads": 2, "width": 512, "height": 512, "steps": 2}


def report() -> Report:
    engines = {
        "sdscratch": Measured(
            "sdscratch", "bfloat16", {"torch": "2"}, 3.0, 2_600_000_000, [2.0, 9.0, 1.0], [3.0]
        ),
        "diffusers-best": Measured("diffusers-best", "bfloat16", {}, 5.0, 10**9, [4.0, 4.0], [3.0, 5.0, 4.0]),
        "openvino": Measured("openvino", failed="it is not here"),
    }
    return Report(MACHINE, WORK, engines, "diffusers-best", {"help": 0.2})


def test_a_ratio_is_our_median_by_theirs() -> None:
    assert ratio(report(), "step", "diffusers-best") == 2.0 / 4.0
    assert ratio(report(), "decode", "diffusers-best") == 3.0 / 4.0
    assert ratio(report(), "step", "openvino") is None
    assert ratio(report(), "step", "never heard of") is None


def test_targets_are_reached_missed_or_not_measured() -> None:
    verdicts = {target.what: target.verdict for target in targets(report())}
    assert verdicts == {
        "step, by diffusers-best": "aim",
        "step, by diffusers": "not measured",
        "step, by stable-diffusion.cpp": "not measured",
        "step, by openvino": "not measured",
        "decode, by diffusers-best": "bar",
        "load": "bar",
        "peak memory": "bar",
        "help, cold": "missed",
        "txt2img, cold": "not measured",
    }


def test_int8_is_measured_by_ours() -> None:
    measured = report()
    measured.engines["sdscratch-int8"] = Measured("sdscratch-int8", "int8", steps=[1.3], decodes=[2.4])
    found = {target.what: target for target in targets(measured)}
    assert found["step in int8, by ours"].measured == 1.3 / 2.0
    assert found["step in int8, by ours"].verdict == "bar"
    assert found["decode in int8, by ours"].verdict == "missed"


def test_distances_are_relative_for_predictions_and_levels_for_pictures() -> None:
    exact = {"prediction": np.array([3.0, -4.0]), "picture": np.array([0.0, 10.0])}
    found = {"prediction": np.array([3.0, -3.0]), "picture": np.array([3.0, 6.0])}
    far = distances(found, exact)
    assert far["prediction_max"] == pytest.approx(1 / 4)
    assert far["prediction_rms"] == pytest.approx((1 / 2) ** 0.5 / (25 / 2) ** 0.5)
    assert far["picture_max"] == 4.0
    assert far["picture_rms"] == pytest.approx((25 / 2) ** 0.5)
    assert set(distances({"picture": found["picture"]}, exact)) == {"picture_max", "picture_rms"}


def test_the_tables_say_machine_versions_ratios_and_failures() -> None:
    for lines in (list(text(report())), list(markdown(report()))):
        whole = "\n".join(lines)
        for part in (
            "a processor, 2 threads",
            "torch 2",
            "512×512",
            "0.50 ×",
            "failed: it is not here",
            "missed",
        ):
            assert part in whole
    json.dumps(report().record(), allow_nan=False)


def test_guidance_is_that_of_our_own_pipeline(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(1, 4, 2, 2)), rng.normal(size=(2, 3, 5))
    inputs = Inputs(
        x.astype(np.float32), 2.0, 999.0, context.astype(np.float32), 7.5, x.astype(np.float32), 0.2
    )
    inputs.save(tmp_path / "inputs.npz")
    read = Inputs.read(tmp_path / "inputs.npz")
    assert (read.sigma, read.timestep, read.scale, read.latent_scale) == (2.0, 999.0, 7.5, 0.2)
    np.testing.assert_array_equal(read.x, inputs.x)
    np.testing.assert_allclose(read.network_input, np.concatenate([x, x]) / 5**0.5, rtol=1e-6)
    both = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(inputs.guided(both), [[1.0 + 7.5 * 2.0]])


def test_engines_take_turns_in_processes_and_one_that_fails_is_a_line(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    words = [
        "--shape",
        "tiny",
        "--size",
        "64x64",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--cold",
        "0",
        "--threads",
        "1",
        "--cache",
        str(tmp_path),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    # stable-diffusion.cpp is missing, or refuses a model that is not of full size
    engines = "sdscratch-float32,diffusers,stable-diffusion.cpp"
    done = subprocess.run(
        [sys.executable, "-m", "sdscratch.bench.peers", "--engines", engines, *words, "--json", str(out)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["engines"]
    assert "failed: " in done.stdout
    assert found["stable-diffusion.cpp"]["failed"]
    for name in ("sdscratch-float32", "diffusers"):
        assert found[name]["failed"] is None
        assert len(found[name]["steps"]) == len(found[name]["decodes"]) == 2
        assert found[name]["peak"] > 0
    far = found["sdscratch-float32"]["distance"]
    assert 0.0 < far["prediction_rms"] < 1e-5
    assert far["picture_max"] <= 1.0


def test_an_engines_process_holds_no_torch_but_its_own() -> None:
    check = "import sdscratch.bench.peers.worker, sys; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
