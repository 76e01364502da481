"""The engines that people use today, and ours, by name. Each is imported in a process of its own.

An engine loads the checkpoint, takes guided steps, decodes, and tells what it computed. Of an engine that can
be asked for its U-Net alone, that is timed; ours is timed with all that is around it, as users have it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sdscratch.bench.peers.engine import Engine, Ours, OursExact, OursIntegers
from sdscratch.bench.peers.work import NEGATIVE, PROMPT, Array, Work

__all__ = ["ENGINES", "convert", "converted"]


class Diffusers(Engine):
    """diffusers as it comes: its pipeline's defaults."""

    best: ClassVar[bool] = False
    pipeline: Any = None

    @property
    def half(self) -> bool:
        """Whether it computes in bfloat16."""
        return self.best and self.work.bfloat16

    @property
    def precision(self) -> str:
        return ("bfloat16" if self.half else "float32") + (", channels_last" if self.best else "")

    def versions(self) -> dict[str, str]:
        import diffusers
        import torch

        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        return {"diffusers": diffusers.__version__, "torch": torch.__version__}

    def load(self) -> None:
        import diffusers
        import torch

        self.pipeline = None  # the one before goes first, else two would be in memory
        self.dtype = torch.bfloat16 if self.half else torch.float32
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(
            self.work.checkpoint,
            config=self.work.folder,
            local_files_only=True,
            safety_checker=None,
            torch_dtype=self.dtype,
        )
        if self.best:
            pipeline.unet.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
        self.pipeline = pipeline
        self.x, self.context, self.latent = (
            torch.from_numpy(array).to(self.dtype)
            for array in (
                self.inputs.network_input,
                self.inputs.context,
                self.inputs.latent / np.float32(self.inputs.latent_scale),
            )
        )

    def steps(self) -> float:
        import torch

        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(self.work.steps):
                self.both = self.pipeline.unet(self.x, self.inputs.timestep, self.context).sample
        return (time.perf_counter() - start) / self.work.steps

    def decode(self) -> float:
        import torch

        start = time.perf_counter()
        with torch.inference_mode():
            self.pixels = self.pipeline.vae.decode(self.latent).sample
        return time.perf_counter() - start

    def prediction(self) -> Array:
        return self.inputs.guided(self.both.float().numpy())

    def picture(self) -> Array:
        return levels(self.pixels.float().numpy())


class DiffusersBest(Diffusers):
    """diffusers at its best without compiling."""

    best = True


class OpenVino(Engine):
    """OpenVINO with static shapes, from diffusers' networks as they were converted beforehand."""

    reloads = 1  # most of it is compiling

    @property
    def precision(self) -> str:
        return "bfloat16" if self.work.bfloat16 else "float32"

    def versions(self) -> dict[str, str]:
        import openvino

        return {"openvino": openvino.__version__.split("-")[0]}

    def load(self) -> None:
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.work.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": self.work.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        models = [self.model(core, file) for file in converted(self.work)]
        self.unet, self.decoder = (core.compile_model(model, "CPU", settings) for model in models)

    def model(self, core: Any, file: Path) -> Any:
        """A network before it is compiled."""
        return core.read_model(str(file))

    def steps(self) -> float:
        given = [self.inputs.network_input, np.float32(self.inputs.timestep), self.inputs.context]
        start = time.perf_counter()
        for _ in range(self.work.steps):
            self.both = self.unet(given)[0]
        return (time.perf_counter() - start) / self.work.steps

    def decode(self) -> float:
        latent = self.inputs.latent / np.float32(self.inputs.latent_scale)
        start = time.perf_counter()
        self.pixels = self.decoder([latent])[0]
        return time.perf_counter() - start

    def prediction(self) -> Array:
        return self.inputs.guided(self.both)

    def picture(self) -> Array:
        return levels(self.pixels)


class OpenVinoIntegers(OpenVino):
    """OpenVINO with its weights compressed to 8 bits by NNCF, as its makers advise for a CPU."""

    @property
    def precision(self) -> str:
        return f"int8 weights, {super().precision}"

    def versions(self) -> dict[str, str]:
        import nncf

        return super().versions() | {"nncf": nncf.__version__}

    def model(self, core: Any, file: Path) -> Any:
        import nncf

        return nncf.compress_weights(super().model(core, file))


def converted(work: Work) -> tuple[Path, Path]:
    """Where OpenVINO's form of the U-Net and of the decoder lies."""
    folder = Path(work.folder)
    return tuple(folder / f"{part}-{work.width}x{work.height}.xml" for part in ("unet", "decoder"))  # type: ignore[return-value]


def convert(work: Work) -> None:
    """Convert diffusers' networks for OpenVINO, once; needs some 10 GB of memory."""
    import openvino
    import torch

    class Plain(torch.nn.Module):
        """A network that gives its tensor instead of a record."""

        def __init__(self, compute: Any, network: torch.nn.Module) -> None:
            super().__init__()
            self.compute, self.network = compute, network

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.compute(*inputs).sample  # type: ignore[no-any-return]

    engine = Diffusers(work)
    engine.versions()
    engine.load()
    pipeline = engine.pipeline
    unet, decoder = Plain(pipeline.unet, pipeline.unet), Plain(pipeline.vae.decode, pipeline.vae)
    whole = ((engine.x, torch.tensor(engine.inputs.timestep), engine.context), (engine.latent,))
    for path, network, inputs in zip(converted(work), (unet, decoder), whole, strict=True):
        if not path.exists():
            shapes = [tuple(tensor.shape) for tensor in inputs]
            small = inputs[0][..., :8, :8]  # tracing runs the network; the shapes are set to the whole ones
            with torch.no_grad():
                model = openvino.convert_model(
                    network.eval(), example_input=(small, *inputs[1:]), input=shapes
                )
            openvino.save_model(model, path.with_suffix(".part.xml"), compress_to_fp16=False)
            path.with_suffix(".part.bin").rename(path.with_suffix(".bin"))
            path.with_suffix(".part.xml").rename(path)


class StableDiffusionCpp(Engine):
    """stable-diffusion.cpp by its Python bindings; it takes no latents, so its results cannot be compared."""

    reloads = 1
    once = True

    @property
    def precision(self) -> str:
        return "float16"

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        import stable_diffusion_cpp  # noqa: F401

        return {"stable-diffusion-cpp-python": version("stable-diffusion-cpp-python")}

    def load(self) -> None:
        from stable_diffusion_cpp import StableDiffusion

        self.model = StableDiffusion(
            model_path=self.work.checkpoint,
            vae_decode_only=True,
            n_threads=self.work.threads,
            wtype="f16",
            verbose=False,
        )

    def steps(self) -> float:
        """One picture of one step; what comes after the step is the decoding."""
        times: list[float] = []
        ends: list[float] = []

        def progress(step: int, steps: int, seconds: float) -> None:
            if (step, steps) == (1, 1):
                times.append(seconds)
                ends.append(time.perf_counter())

        sides = {"width": self.work.width, "height": self.work.height}
        self.model.generate_image(
            PROMPT, NEGATIVE, cfg_scale=self.inputs.scale, sample_method="euler", sample_steps=1, seed=0,
            progress_callback=progress, **sides,
        )  # fmt: skip
        self.decoding = time.perf_counter() - ends[-1]
        return times[-1]

    def decode(self) -> float:
        return self.decoding


def levels(pixels: Any) -> Array:
    """[1, 3, H, W] in −1 to 1 → [H, W, 3] in whole levels of 255."""
    clipped = np.clip(pixels[0] / 2.0 + 0.5, 0.0, 1.0) * 255.0
    rounded: Array = np.round(clipped).transpose(1, 2, 0).astype(np.float32)
    return rounded


ENGINES: dict[str, type[Engine]] = {
    "sdscratch": Ours,
    "sdscratch-float32": OursExact,
    "sdscratch-int8": OursIntegers,
    "diffusers": Diffusers,
    "diffusers-best": DiffusersBest,
    "openvino": OpenVino,
    "openvino-int8": OpenVinoIntegers,
    "stable-diffusion.cpp": StableDiffusionCpp,
}
