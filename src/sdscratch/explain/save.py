"""The tensors of a run as a file for notebooks: NumPy's .npz, and a JSON that says what each is."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdscratch.explain.capture import Run
from sdscratch.explain.reading import tokens_of
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.version import __version__

__all__ = ["arrays_of", "saved"]

Arrays = dict[str, tuple[npt.NDArray[Any], str]]  # by name: the values, and what they are


def saved(run: Run, tokenizer: Tokenizer) -> tuple[bytes, bytes]:
    """A run as the bytes of an .npz file and of the JSON beside it."""
    arrays = arrays_of(run, tokenizer)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: values for name, (values, _) in arrays.items()})  # type: ignore[arg-type]
    about = {
        "sdscratch": __version__,
        "prompt": run.request.options.prompt,
        "seed": run.request.options.seed,
        "words": list(run.words),
        "arrays": {
            name: {"shape": list(values.shape), "dtype": str(values.dtype), "meaning": meaning}
            for name, (values, meaning) in arrays.items()
        },
    }
    return buffer.getvalue(), f"{json.dumps(about, indent=2, ensure_ascii=False)}\n".encode()


def arrays_of(run: Run, tokenizer: Tokenizer) -> Arrays:
    """Every tensor that the page is made of."""
    arrays: Arrays = {}
    if run.prompt:
        arrays |= text_arrays(run, tokenizer)
    if run.numbers:
        arrays |= step_arrays(run)
    if len(run.inside):
        arrays |= inside_arrays(run)
    if run.encoder.mean is not None and run.encoder.log_variance is not None and run.request.init is not None:
        arrays["posterior_mean"] = (
            run.encoder.mean.numpy(),
            "[c, h, w] of the encoder, before the latent scale",
        )
        arrays["posterior_log_variance"] = run.encoder.log_variance.numpy(), "[c, h, w] likewise"
    for name, output in run.decoder.levels.items():
        arrays[f"decoder_{name}"] = output.maps.numpy(), f"channels {list(output.channels)} of {output.shape}"
    if run.end is not None:
        arrays["latent"] = run.end.numpy(), "[c, h, w], what was decoded"
    if run.picture is not None:
        arrays["picture"] = np.asarray(run.picture.image), "[H, W, 3] red, green, blue"
    return arrays


def text_arrays(run: Run, tokenizer: Tokenizer) -> Arrays:
    """What was read, and what the text encoder said."""
    stage = run.prompt[0].planned.stages[0]
    arrays: Arrays = {
        "ids": (np.array([chunk.ids for chunk in stage.chunks]), "[chunks, tokens] of the prompt"),
        "weights": (np.array([chunk.weights for chunk in stage.chunks]), "[chunks, tokens]"),
        "pieces": (
            np.array([[token.piece for token in tokens_of(chunk, tokenizer)] for chunk in stage.chunks]),
            "[chunks, tokens]",
        ),
        "context": (
            run.prompt[0].conditionings[0].context[0].float().cpu().numpy(),
            "[tokens, d] of the prompt, weighted",
        ),
    }
    if run.negative:
        context = run.negative[0].conditionings[0].context[0].float().cpu().numpy()
        arrays["negative_context"] = context, "[tokens, d] of the negative prompt"
    layers = run.text.attentions.get(tuple(stage.chunks[0].ids), [])
    if layers:
        meaning = "[layers, heads, tokens, tokens] of the first chunk"
        arrays["text_attention"] = torch.stack(layers).numpy(), meaning
    return arrays


def step_arrays(run: Run) -> Arrays:
    """The steps: numbers of all, tensors of those that are kept."""
    steps, numbers = run.steps.values(), run.numbers
    estimates = [step.asked for step in steps]
    arrays: Arrays = {
        "sigmas": (np.array([each.sigma for each in numbers]), "[steps], with which each began"),
        "timesteps": (np.array([each.timestep for each in numbers]), "[steps], what the U-Net was told"),
        "steps": (
            np.array([index for index, _ in run.steps.items()]),
            "the steps whose tensors follow, from 0",
        ),
        "x": (stacked([step.before for step in steps]), "[kept, c, h, w], before each step, in σ-space"),
        "x_after": (stacked([step.after for step in steps]), "[kept, c, h, w], after it"),
        "noise": (
            stacked([step.noise for step in steps]),
            "[kept, c, h, w], guided prediction as unit noise",
        ),
        "denoised": (
            stacked([each.denoised for each in estimates]),
            "[kept, c, h, w], estimates of x₀, guided",
        ),
        "denoised_with_prompt": (
            stacked([each.with_prompt for each in estimates]),
            "[kept, c, h, w], with the prompt alone",
        ),
    }
    without = [each.without for each in estimates]
    if all(each is not None for each in without):
        found = stacked([each for each in without if each is not None])
        arrays["denoised_without_prompt"] = found, "[kept, c, h, w], without the prompt"
    if run.start is not None:
        arrays["start"] = run.start.numpy(), "[c, h, w], where sampling began, in σ-space"
    return arrays


def inside_arrays(run: Run) -> Arrays:
    """Where words looked, and what the blocks gave."""
    seen = list(run.inside.items())
    arrays: Arrays = {
        "inside_steps": (
            np.array([run.inside_steps[index] for index, _ in seen]),
            "the steps of the passes seen inside the U-Net, from 0",
        )
    }
    for (h, w), total in run.total.items():
        maps = [inside.attention[h, w] for _, inside in seen]
        arrays[f"attention_{h}x{w}"] = stacked(maps), "[passes, words, h, w], mean of heads and layers"
        arrays[f"attention_{h}x{w}_mean"] = total.numpy(), "[words, h, w], mean of all passes"
    for name, output in seen[0][1].outputs.items():
        several = [inside.outputs[name] for _, inside in seen]
        arrays[f"block_{name}_rms"] = np.array([each.rms for each in several]), f"[passes] of {output.shape}"
        meaning = f"[passes, channels, h, w]: channels {list(output.channels)}"
        arrays[f"block_{name}"] = stacked([each.maps for each in several]), meaning
    return arrays


def stacked(tensors: Sequence[Tensor]) -> npt.NDArray[Any]:
    """Tensors of one shape as one array; of another size (a second pass) only the last ones."""
    last = tensors[-1].shape
    same = [each for each in tensors if each.shape == last]
    return np.asarray(torch.stack(same).numpy())
