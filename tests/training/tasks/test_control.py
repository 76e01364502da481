"""`train control`: nothing changes at first, then hints are followed; resumed, and opened by what draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdscratch.addons.control import open_controls
from sdscratch.addons.control_requests import ControlRequest
from sdscratch.checkpoints.model import open_model
from sdscratch.images import read_picture
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.controlnet import ControlNet
from sdscratch.models.t2i_adapter import Adapter
from sdscratch.models.unet import UNet
from sdscratch.training.dataset.folder_source import Framing, open_folder
from sdscratch.training.dataset.hints import GivenHints
from sdscratch.training.dataset.source import Latents
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.tasks.control import Steered, adapter_for, controlnet_for
from sdscratch.training.tasks.diffusion import DenoisingLoss
from support.checkpoints import SMALLER
from support.cli import Result, sdscratch
from support.controlnets import hint
from support.shapes_folder import write_pictures
from support.training import CPU

FIXED = ["--train-batch-size", 4, "--workers", 1, "--device", "cpu", "--lr-warmup-steps", 1]


def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALLER.unet)


MADE: dict[str, Callable[[UNet], Adapter | ControlNet]] = {
    "controlnet": lambda unet: controlnet_for(SMALLER, unet),
    "adapter": lambda unet: adapter_for(SMALLER),
    "light": lambda unet: adapter_for(SMALLER, hint_channels=1, light=True),
}


def test_an_untrained_controlnet_is_a_copy_of_the_way_down_that_changes_nothing() -> None:
    network = unet()
    module = Steered(network, MADE["controlnet"](network))
    own, theirs = module.control.state_dict(), network.state_dict()
    shared = [name for name in own if name in theirs]
    assert {name.split(".")[0] for name in shared} == {"time1", "time2", "down", "middle"}
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    rng = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 77, 24, generator=rng)
    told, times = Conditioning(context), torch.tensor([3.0, 700.0])
    hints = torch.rand(2, 3, 32, 32, generator=rng)
    assert torch.equal(module(x, times, told, hints), network(x, times, told))
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        f"control.{name}" for name, _ in module.control.named_parameters()
    }


@pytest.mark.parametrize("kind", MADE)
def test_what_a_hint_tells_is_learnt_and_the_model_stays(kind: str, tmp_path: Path) -> None:
    """Latents are the hint's own colours: without it they are noise, with it they are known."""

    def latents(step: int, indices: range) -> Latents:
        rng = torch.Generator().manual_seed(step)
        hints = torch.rand(4, 3, 2, 2, generator=rng).repeat_interleave(16, 2).repeat_interleave(16, 3)
        values = 4.0 * hints.mean(1, keepdim=True)[..., ::4, ::4].expand(-1, 4, -1, -1) - 2.0
        chosen = slice(indices.start, indices.stop)
        return Latents(values[chosen], ("",) * len(indices), hints[chosen])

    network = unet()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    context = torch.zeros(1, 77, 24)
    loss = DenoisingLoss(
        SMALLER.schedule, lambda texts: Conditioning(context.expand(len(texts), -1, -1)), latents, CPU,
        size=4, seed=1,
    )  # fmt: skip
    module = Steered(network, MADE[kind](network))
    recipe = Recipe(Budget(steps=30), 2e-2, batch=4, warm_up=1, ema=None)

    def unknown() -> float:
        with torch.no_grad():
            return float(torch.stack([loss(module, step, range(4))[0] for step in range(900, 906)]).mean())

    first = unknown()
    train(module, loss, recipe, tmp_path, CPU)
    assert unknown() < 0.97 * first
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    (checkpoint, *_) = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    assert all(".unet." not in name for name in load_file(checkpoint))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def common(pictures: Path, tiny_model: Path) -> list[object]:
    return [pictures, "--model", tiny_model, "--resolution", 64, *FIXED]


def control(common: list[object], output: Path, steps: int, *more: object) -> Result:
    return sdscratch("train", "control", *common, "--output", output, "--max-train-steps", steps, *more)


def test_a_run_in_two_parts_is_one_run_and_draws(
    common: list[object], tiny_model: Path, tmp_path: Path
) -> None:
    made = ["--preprocess", "canny:20:60", "--validation-prompt", "a dog", "--lr-scheduler", "constant"]
    made += ["--cache", str(tmp_path / "cache")]
    whole = control(common, tmp_path / "whole", 4, *made, "--json")
    assert whole.code == 0, whole.stderr
    path = Path(json.loads(whole.stdout)["path"])
    assert path.name == "control.safetensors"
    assert control(common, tmp_path / "parts", 2, *made).code == 0
    again = control(common, tmp_path / "parts", 4, *made, "--resume-from-checkpoint", "latest")
    assert again.code == 0, again.stderr
    assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()
    metrics = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [line["loss"] for line in metrics[0]] == [line["loss"] for line in metrics[1]]
    grid = read_picture(next((tmp_path / "whole" / "samples").iterdir()))
    assert grid.size == (64, 2 * 64)  # the hint above what follows it

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["sdscratch.provenance"])
    assert (about["steps"], about["hints"]) == (4, "canny:20:60")
    assert about["base_hash"] == open_model(tiny_model).hash()
    (opened,) = open_controls([ControlRequest(str(path), hint())], open_model(tiny_model))
    assert opened.file.title == "ControlNet"
    facts = json.loads(sdscratch("info", path, "--json", "--against", tiny_model).lines[0])
    assert facts["misfits"] == []
    asked = ["--steps", 2, "--seed", 1, "--size", "64x64", "--device", "cpu", "-o", tmp_path / "x.png"]
    hint().save(tmp_path / "hint.png")
    drawn = sdscratch(
        "txt2img", "a dog", "-m", tiny_model, *asked, "--control", f"{path},image={tmp_path / 'hint.png'}"
    )
    assert drawn.code == 0, drawn.stderr


def hints_of(pictures: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in pictures.rglob("*.png"):
        with Image.open(path) as image:
            inverted = ImageOps.invert(image.convert("RGB")).resize((2 * image.width, 2 * image.height))
        (folder / path.relative_to(pictures)).parent.mkdir(parents=True, exist_ok=True)
        inverted.save(folder / path.relative_to(pictures).with_suffix(".webp"), lossless=True)
    return folder


def test_hints_of_a_folder_are_framed_as_their_pictures(
    pictures: Path, common: list[object], tmp_path: Path
) -> None:
    hints = hints_of(pictures, tmp_path / "hints")
    source = open_folder(pictures, Framing(32, 4, random_flip=True), captioned=False)
    given = GivenHints(source, hints)

    def levels(values: object) -> Tensor:
        return torch.from_numpy(values).float()  # type: ignore[arg-type]

    for view in source.views()[:6]:
        difference = levels(given(view)) - (255 - levels(source.levels(view)))
        assert difference.abs().mean() < 8
    asked = ["--kind", "t2i-adapter", "--hint-channels", 1]
    result = control(common, tmp_path / "run", 1, "--hints", hints, *asked, "--random-flip")
    assert result.code == 0, result.stderr
    saved = load_file(tmp_path / "run" / "control.safetensors")
    assert saved["conv_in.weight"].shape == (16, 64, 3, 3)
    next(hints.rglob("*.webp")).unlink()
    refused = control(common, tmp_path / "other", 1, "--hints", hints, *asked)
    assert refused.code == 4
    assert "has no hint in" in refused.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "say where hints come from"),
        (["--preprocess", "canny", "--hints", "x"], 2, "say where hints come from"),
        (["--preprocess", "depth"], 2, "made by networks that sdscratch does not have"),
        (["--preprocess", "inpaint"], 2, "needs a mask beside each picture"),
        (["--preprocess", "canny", "--hint-channels", 2], 2, "must be 1 or 3"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything(
    options: list[object], code: int, said: str, common: list[object], tmp_path: Path
) -> None:
    result = control(common, tmp_path / "run", 1, *options)
    assert result.code == code, result.stderr
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()
