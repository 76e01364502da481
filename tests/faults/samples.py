"""Small sound files of every kind that is read: the smallest that a mutation can still be inside of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from faults.headers import saved, slim
from sdscratch.images.metadata.record import AddonRecord, LoraRecord, MaskRecord
from sdscratch.jobs.journal import picture_key
from support.checkpoints import MERGES, SMALLER, TINY, ldm_tensors, self_contained, tiny_tokenizer
from support.controlnets import TINY_ADAPTER, TINY_CONTROL, write_control
from support.loras import changes, targets, write_lora
from support.pictures import record
from support.upscalers import TINY_COMPACT, TINY_RRDB, random_tensors

__all__ = [
    "INFOTEXTS",
    "PLANS",
    "controls",
    "embeddings",
    "journals",
    "loras",
    "models",
    "records",
    "upscalers",
    "vaes",
]


def models() -> list[bytes]:
    """Of two shapes. (What torch.save writes cannot tell that it is small.)"""
    smaller = {name: tensor.half() for name, tensor in ldm_tensors(SMALLER).items()}
    tiny = {name: tensor.half() for name, tensor in ldm_tensors(TINY).items()}
    return [
        save_tensors(smaller, self_contained(SMALLER)),
        save_tensors(smaller, self_contained(SMALLER)),
        save_tensors(tiny, self_contained(TINY)),
    ]


def loras(folder: Path) -> list[bytes]:
    """In several spellings and kinds, on a few weights each."""
    chosen = [weight for weight in targets(TINY) if "attn" in weight.name][:3] + targets(TINY)[:2]
    made = changes(chosen, rank=2)
    spellings = ("kohya", "PEFT", "diffusers, layers")
    files = [write_lora(folder / "lora.safetensors", made, each).read_bytes() for each in spellings]
    up = next(name for name in _names(files[0]) if name.endswith("lora_up.weight"))
    place = up.removesuffix(".lora_up.weight")
    kohya = _tensors(files[0])
    rows, rank = kohya[up].shape[:2]
    columns = kohya[f"{place}.lora_down.weight"].shape[1]
    one = torch.full((rows, rank), 0.1), torch.full((rank, columns), 0.1)
    hada = dict(zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), one * 2, strict=True))
    files += [
        save_tensors(
            {f"{place}.{name}": tensor.clone() for name, tensor in hada.items()}
            | {f"{place}.alpha": torch.tensor(1.0)}
        ),
        save_tensors(
            {f"{place}.lokr_w1": torch.ones(2, 2), f"{place}.lokr_w2": torch.ones(rows // 2, columns // 2)}
        ),
        save_tensors({f"{place}.diff": torch.zeros(rows, columns), f"{place}.diff_b": torch.zeros(rows)}),
        save_tensors(
            {
                **{k: v for k, v in kohya.items() if k.startswith(place)},
                f"{place}.dora_scale": torch.ones(rows, 1),
            }
        ),
        slim(saved(kohya)),
    ]
    return files


def _tensors(data: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(data)


def _names(data: bytes) -> list[str]:
    return list(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


def embeddings() -> list[bytes]:
    """Of the web UI, of diffusers, as safetensors."""
    width = TINY.text.width
    vectors = torch.zeros(2, width)
    return [
        saved(
            {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "zorb", "step": 500}
        ),
        slim(saved({"<zorb>": vectors[0]})),
        save_tensors({"emb_params": vectors}),
        save_tensors({"<zorb>": vectors[0]}, {"x": "y"}),
    ]


def controls(folder: Path) -> list[bytes]:
    """A ControlNet in both layouts, and an adapter."""
    files = []
    for config, layout in ((TINY_CONTROL, "ldm"), (TINY_CONTROL, "file"), (TINY_ADAPTER, "ldm")):
        files.append(write_control(folder / "control.safetensors", config, layout=layout).read_bytes())
    return files


def vaes() -> list[bytes]:
    """With and without the prefix that it has in a model."""
    prefix = "first_stage_model."
    own = {name: tensor.half() for name, tensor in ldm_tensors(TINY).items() if name.startswith(prefix)}
    bare = {name.removeprefix(prefix): tensor for name, tensor in own.items()}
    return [save_tensors(own), save_tensors(bare, {"x": "y"}), slim(saved({"state_dict": bare}))]


def upscalers() -> list[bytes]:
    """Of two families."""
    rrdb = random_tensors(TINY_RRDB, "ESRGAN")
    return [
        slim(saved(rrdb)),
        save_tensors(rrdb),
        slim(saved({"params": random_tensors(TINY_COMPACT, "compact")})),
    ]


def tokenizers() -> dict[str, bytes]:
    """As a model's metadata have it, in Hugging Face's JSON, and as a table of merges."""
    tiny = tiny_tokenizer()
    merges = "#version: 0.2\n" + "\n".join(map(" ".join, MERGES)) + "\n"
    return {
        "metadata.json": self_contained(TINY)["sdscratch.tokenizer"].encode(),
        "own/tokenizer.json": tiny._backend.to_str().encode(),
        "merges.txt": merges.encode(),
    }


# --- texts ----------------------------------------------------------------------------------------


def records() -> list[bytes]:
    """Our own, of plain pictures and of those with everything about them."""
    full = record(
        mode="img2img",
        init_hash="0" * 32,
        fit="cover",
        background="white",
        loras=(LoraRecord("ink", 0.8, "a" * 10, tagged=False, blocks=(1.0,) * 17, start=2),),
        embeddings=(AddonRecord("zorb", "b" * 64),),
        vae=AddonRecord("v", "c" * 64),
        mask=MaskRecord(hash="d" * 32),
    )
    plain = record()
    hires = replace(
        plain, options=replace(plain.options, hires=2.0, prompt="a [dog:cat:0.5] (x:1.2) AND y :0.5")
    )
    return [each.to_json().encode() for each in (plain, full, hires)]


INFOTEXTS = (
    "a fox, (red:1.2)\nNegative prompt: bad\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 5, Size: 64x64, "
    'Model hash: 0123456789, Model: x, Clip skip: 2, ENSD: 31337, Lora hashes: "ink: 0123456789ab", '
    "Hires upscale: 2, Hires steps: 5, Hires upscaler: Latent, Denoising strength: 0.5, Version: v1.10.1",
    "a fox <lora:ink:0.8>\nSteps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, Seed: 5, Size: 512x512, "
    'ControlNet 0: "Module: canny, Model: control [abc], Weight: 1, Guidance Start: 0", Version: f2.0.1',
    json.dumps({"prompt": "a fox", "negative_prompt": "x", "seed": "1", "steps": 4, "resolution": "(64, 64)"}),
    json.dumps({"app_version": "3.1", "positive_prompt": "a", "seed": 1, "width": 64, "height": 64, "steps": 2,
                "cfg_scale": 7, "scheduler": "euler", "model": {"name": "m", "hash": "x"}, "loras": []}),
    json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "cfg": 7, "sampler_name": "euler",
                "scheduler": "normal", "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
                "latent_image": ["5", 0]}}, "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m"}},
                "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
                "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
                "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["4", 1]}}}),
    json.dumps({"prompt": "a fox", "steps": 28, "height": 64, "width": 64, "scale": 5.0, "uc": "bad", "seed": 1,
                "sampler": "k_euler_ancestral", "strength": 0.7}),
    json.dumps({"c": "a fox", "uc": "bad", "seed": 1, "sampler": "Euler a", "scale": 7, "size": "64x64", "steps": 2,
                "v2": {"refinerStart": 0.7}}),
)  # fmt: skip

_SMALL = "width = 64\nheight = 64\nsteps = 1\n"
PLANS: Mapping[str, tuple[str, ...]] = {
    "plan.txt": (
        '# a comment\na dog\n\n--prompt "a cat" --steps 1 --seed 5 --sampler_name "Euler a"\n'
        "a horse --n bad --w 64 --h 64 --d 7 --s 1 --l 7.5\n",
    ),
    "plan.jsonl": (
        '{"prompt": "a {dog|cat}", "seed": 5, "steps": 1, "width": 64, "height": 64, "batch_count": 2}\n'
        '{"prompt": "x", "cfg_scale": 7.5, "sampler": "euler", "scheduler": "karras", "hires": 2}\n',
    ),
    "plan.csv": ('prompt,steps,seed\n"a dog, red",1,2\na cat,2,\n',),
    "plan.toml": (
        f'prompt = "a dog"\n{_SMALL}[axes]\ncfg_scale = [5, 7]\nseed = "1..4"\nrescale_cfg = "0.4..1.0/4 points"\n',
        f'prompt = "a"\n{_SMALL}[zip]\nseed = [1, 2]\nprompt = ["a", "b"]\n[[jobs]]\nsteps = 2\n[jobs.axes]\nseed = "1..2"\n',
    ),
}
CONFIGS = (
    'train = "lora"\ndata = "x"\noutput = "y"\nmax_train_steps = 1\nlearning_rate = 0.0001\nrank = 2\n',
)
CAPTIONS: Mapping[str, tuple[str, ...]] = {
    "metadata.jsonl": ('{"file_name": "a.png", "text": "a dog"}\n{"file_name": "b.png", "caption": "x"}\n',),
    "metadata.csv": ('file_name,text\na.png,"a dog, red"\nb.png,a cat\n',),
}
WILDCARDS: Mapping[str, tuple[str, ...]] = {
    "animals.txt": ("dog\ncat\n# no\n0.5::horse\n",),
    "more.yaml": ("animals:\n  big:\n    - horse\n    - 3::whale\ncolours: [red, blue]\n",),
    "more.json": ('{"animals": {"small": ["mouse", "ant"]}, "x": ["y"]}',),
}
PROMPTS = (
    "a (red:1.2) [dog:cat:0.5] [[blue]] BREAK a [x|y] AND a cat :0.5 <lora:ink:0.8> \\(no\\) {a|b} __x__",
    '(a, (b:0.5), c)++ and ("a", "b").blend(0.5, 0.5) [a:b] [c::0.3]',
)


def journals() -> list[bytes]:
    """What a run notes."""
    lines: list[dict[str, Any]] = [
        {"key": picture_key({"n": number}), "name": f"{number:04}.png", "job": number} for number in (1, 2)
    ]
    lines.append({"failed": "0003.png", "job": 3})
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]
