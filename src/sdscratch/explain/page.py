"""The page: one HTML file that holds all that it shows, and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.explain.capture import Run
from sdscratch.explain.charts import number
from sdscratch.explain.compare import comparison
from sdscratch.explain.filters import filters
from sdscratch.explain.glossary import GLOSSARY, anchor, marked
from sdscratch.explain.sources import source_of
from sdscratch.explain.texts import PAPERS, StageText, stage_texts
from sdscratch.explain.views.frames import Frames
from sdscratch.explain.views.inside import inside_view
from sdscratch.explain.views.levels import noise_view, schedule_view
from sdscratch.explain.views.loop import loop_view
from sdscratch.explain.views.made import picture_view
from sdscratch.explain.views.pixels import pixels_view
from sdscratch.explain.views.words import text_view, tokens_view
from sdscratch.generation.pipeline import Pipeline
from sdscratch.hardware import device_kind
from sdscratch.version import __version__

__all__ = ["Told", "page"]

SHOWN_AT_ONCE = 2048  # positions of latents that are made pictures of at once: eight of the built-in model's


@dataclass(frozen=True)
class Told:
    """A run to be told of, and the words of the command that makes its picture again."""

    run: Run
    again: Sequence[str]


def page(pipeline: Pipeline, told: Sequence[Told]) -> bytes:
    """The page of one run, or of two side by side.

    Raises:
        SdscratchError: a file of the model cannot be read once more.
    """
    environment = templates()
    views = [view_of(pipeline, each) for each in told]
    compared = None
    if len(told) > 1:  # before the frames are written out, which it adds to
        compared = comparison(told[0].run, told[1].run, views[0]["frames"])
    html = environment.get_template("page.html").render(
        runs=views,
        stages=stages_of(pipeline, told[0].run),
        data=[
            view["frames"].to_json() | {"attention": maps_of(view), "heads": heads_of(view)} for view in views
        ],
        compared=compared,
        glossary=dict(sorted(GLOSSARY.items(), key=lambda each: each[0].lower())),
        filters=filters(),
        style=asset(environment, "page.css"),
        script=asset(environment, "page.js"),
        version=__version__,
    )
    return html.encode()


@cache
def templates() -> jinja2.Environment:
    """The templates; they are compiled once a process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sdscratch.explain", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "marked": marked, "anchor": anchor}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.globals["initial"] = lambda run: initial_step(run["frames"].steps)
    return environment


def initial_step(steps: int) -> int:
    """The step, from 0, that the page opens with: one at which there is something to see, and to come."""
    return max(0, steps // 3 - 1)


def asset(environment: jinja2.Environment, name: str) -> Markup:
    """A file of the templates as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def view_of(pipeline: Pipeline, told: Told) -> dict[str, Any]:
    """All that the page shows of a run."""
    run, config = told.run, pipeline.files.config
    frames = Frames(len(run.numbers))
    ran = bool(run.numbers)
    show = partial(previews, pipeline)
    options = run.request.options
    return {
        "frames": frames,
        "prompt": options.prompt,
        "options": options,
        "sampler": SAMPLERS[options.sampler].title,
        "ran": ran,
        "mode": "txt2img" if run.request.init is None else "img2img",
        "tokens": tokens_view(run, pipeline.files.tokenizer) if ran else None,
        "text": text_view(run, pipeline.files.tokenizer) if ran else None,
        "noise": noise_view(run, config.autoencoder.latent_scale) if ran else None,
        "schedule": schedule_view(run, pipeline.sampling.schedule, config.unet.channels) if ran else None,
        "loop": loop_view(run, frames, show) if ran else None,
        "unet": inside_view(run, config.unet, frames) if ran and len(run.inside) else None,
        "autoencoder": pixels_view(run, config.autoencoder),
        "picture": picture_view(run, told.again),
        "dtype": pipeline.placement.dtype_name,
        "device": device_kind(pipeline.placement.device),
    }


def previews(pipeline: Pipeline, latents: Sequence[Tensor]) -> list[Image.Image]:
    """Latents [c, h, w] as pictures, roughly and at once."""
    # a few at a time: a tiny autoencoder's channels at full size are many times what the pictures are
    few = max(1, SHOWN_AT_ONCE // latents[0][0].numel())
    batches = [torch.stack(list(latents[i : i + few])) for i in range(0, len(latents), few)]
    return [each for batch in batches for each in pipeline.preview(batch.to(pipeline.placement.device))]


def stages_of(pipeline: Pipeline, run: Run) -> list[dict[str, Any]]:
    """The stages in words, with their lines of code."""
    options = run.request.options
    texts = stage_texts(
        sampler=options.sampler,
        prediction=pipeline.files.config.schedule.prediction,
        guided=any(each.pull is not None for each in run.numbers),
        init=run.request.init is not None,
        scale=options.cfg_scale,
    )
    return [stage(index, text) for index, text in enumerate(texts.values(), 1)]


def stage(index: int, text: StageText) -> dict[str, Any]:
    """A stage as the template takes it."""
    return {
        "number": index,
        "name": text.name,
        "title": text.title,
        "paragraph": marked(text.paragraph),
        "equations": text.equations,
        "papers": [(name, PAPERS[name]) for name in text.papers],
        "sources": [source_of(each) for each in text.sources],
    }


def maps_of(view: dict[str, Any]) -> Any:
    """The attention maps, as the script reads them."""
    return None if view["unet"] is None else view["unet"]["attention"]


def heads_of(view: dict[str, Any]) -> Any:
    """The text encoder's heads likewise."""
    attention = None if view["text"] is None else view["text"]["attention"]
    return None if attention is None else attention["heads"]
