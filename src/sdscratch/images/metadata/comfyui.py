"""ComfyUI, and SwarmUI on it: the graph beside the picture, walked back from where it was saved.

The picture's sampler is the one at the beginning of the chain of latents that the saved picture hangs on;
later ones (upscaling, refining) are told as further passes. Its prompts are the texts behind `positive` and
`negative`, conditionings that were combined joined by AND, concatenated ones by BREAK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdscratch.images.metadata.comfy_graph import Graph, Node, from_api, from_editor
from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import an_object, json_object, named, said, size_of
from sdscratch.images.metadata.webui import web_uis_text

__all__ = ["read"]

SAVES = ("Save", "Preview", "Output", "Websocket")
LATENTS = {
    "latent_image",
    "latent",
    "samples",
    "samples_from",
    "samples_to",
    "images",
    "image",
    "pixels",
    "upscale_by",
}
TEXT_INPUTS = ("text", "text_g", "text_l", "populated_text", "prompt", "clip_l", "t5xxl")
JOINED = {  # conditionings that become one
    "ConditioningCombine": " AND ",
    "ConditioningAverage": " AND ",
    "ConditioningConcat": " BREAK ",
}
MODEL_INPUTS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")
SWARM = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfgscale": "CFG scale",
    "seed": "Seed",
    "model": "Model",
    "initimagecreativity": "Denoising strength",
    "swarm_version": "Version",
}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What ComfyUI or SwarmUI says."""
    swarm = an_object((json_object(texts.png.get("parameters")) or {}).get("sui_image_params"))
    swarm = swarm or an_object((json_object(texts.exif.get("UserComment")) or {}).get("sui_image_params"))
    if swarm:
        dropped = {"prompt", "negativeprompt", "width", "height"}
        parameters = size_of(swarm) | named(swarm, SWARM, drop=dropped)
        return "comfyui", Infotext(said(swarm.get("prompt")), said(swarm.get("negativeprompt")), parameters)
    graph = _graph(texts)
    if graph is None:
        return None
    told = _told(graph)
    written = web_uis_text(texts)  # some nodes that save pictures write it, too
    if not told.parameters and written is not None:
        from sdscratch.images.metadata.infotext import parse_infotext

        told = parse_infotext(written)
    return "comfyui", told


def _graph(texts: Texts) -> Graph | None:
    """The graph, wherever it stands: in WebP behind `prompt:` and `workflow:` in EXIF's camera fields."""
    exif = {
        key: text.partition(":")[2]
        for text in (
            texts.exif.get(name, "") for name in ("Model", "Make", "ImageDescription", "UserComment")
        )
        for key in [text.partition(":")[0].lower()]
        if key in ("prompt", "workflow")
    }
    for source in (texts.png, exif):
        values = json_object(source.get("prompt"))
        graph = from_api(values) if values is not None else None
        if graph is not None:
            return graph
    for source in (texts.png, exif):
        values = json_object(source.get("workflow"))
        graph = from_editor(values) if values is not None else None
        if graph is not None:
            return graph
    return None


def _told(graph: Graph) -> Infotext:
    chain = _samplers(graph)
    if not chain:
        return Infotext("", "", {})
    first = chain[-1]
    loras, model = _models(graph, first)
    latent = _latent(graph, first)
    parameters = {
        **_settings(graph, first),
        **latent,
        **named({"Model": model}, {}),
        **_clip_skip(graph, first),
        **({"Loras": ", ".join(loras)} if loras else {}),
        **named({"VAE": _vae(graph)}, {}),
    }
    for number, sampler in enumerate(reversed(chain[:-1]), start=2):
        settings = _settings(graph, sampler)
        parameters[f"Pass {number}"] = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return Infotext(_prompt(graph, first, "positive"), _prompt(graph, first, "negative"), parameters)


def _samplers(graph: Graph) -> list[Node]:
    """The samplers behind the saved picture, the last one first."""
    used = {target.name for node in graph.nodes.values() for _, target in graph.above(node)}
    ends = [node for node in graph.nodes.values() if node.name not in used]
    ends.sort(key=lambda node: not any(word in node.kind for word in SAVES))
    for end in ends:
        found = [node for node in graph.upstream(end) if _is_sampler(node)]
        if found:
            return [node for node in graph.upstream(found[0], LATENTS.__contains__) if _is_sampler(node)]
    return []


def _is_sampler(node: Node) -> bool:
    inputs = node.inputs.keys()
    by_inputs = "positive" in inputs and bool({"latent_image", "seed", "noise_seed", "sigmas"} & inputs)
    return (
        ("KSampler" in node.kind and "Select" not in node.kind) or by_inputs or {"guider", "sigmas"} <= inputs
    )


def _settings(graph: Graph, sampler: Node) -> dict[str, str]:
    """A sampler's own settings, and those of the nodes that custom sampling spreads them over."""
    at = {name: graph.at(sampler, name) or sampler for name in ("noise", "guider", "sigmas", "sampler")}

    def value(holder: Node, *names: str) -> Any:
        return graph.value(holder, *names)

    denoise = value(sampler, "denoise")
    denoise = value(at["sigmas"], "denoise") if denoise is None else denoise
    scheduler = value(sampler, "scheduler") or value(at["sigmas"], "scheduler")
    if scheduler is None and at["sigmas"] is not sampler:
        scheduler = at["sigmas"].kind.removesuffix("Scheduler").lower()
    cfg = value(sampler, "cfg")
    found = {
        "Steps": value(sampler, "steps") or value(at["sigmas"], "steps"),
        "Sampler": value(sampler, "sampler_name") or value(at["sampler"], "sampler_name"),
        "Schedule type": scheduler,
        "CFG scale": value(at["guider"], "cfg") if cfg is None else cfg,
        "Seed": _first(value(sampler, "seed", "noise_seed"), value(at["noise"], "noise_seed", "seed")),
        "Denoising strength": None if denoise in (1, None) else denoise,
        "Start at step": value(sampler, "start_at_step") or None,
    }
    return named(found, {})


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _prompt(graph: Graph, sampler: Node, role: str) -> str:
    guider = graph.at(sampler, "guider") or sampler
    names = (role, "conditioning") if role == "positive" else (role,)
    for holder in (sampler, guider):
        for name in names:
            target = graph.at(holder, name)
            if target is not None:
                return _conditioning(graph, target, role, set())
            if isinstance(holder.inputs.get(name), str):
                return str(holder.inputs[name])
    return ""


def _conditioning(graph: Graph, node: Node, role: str, seen: set[str]) -> str:
    """The text behind a conditioning."""
    if node.name in seen or len(seen) > 200:  # beyond, nothing that a person made
        return ""
    seen.add(node.name)
    if node.kind == "ConditioningZeroOut":
        return ""
    texts = [graph.value(node, name) for name in TEXT_INPUTS if name in node.inputs]
    found = list(dict.fromkeys(text for text in texts if isinstance(text, str) and text))
    if found:
        return ", ".join(found)
    if isinstance(node.inputs.get(role), str):  # loaders that take the prompts themselves
        return str(node.inputs[role])
    parts = []
    for name, target in graph.above(node):
        other = {"positive": "negative", "negative": "positive"}[role]
        if name == role or (name.startswith("conditioning") and name != other) or name.startswith("cond"):
            parts.append(_conditioning(graph, target, role, seen))
    return JOINED.get(node.kind, " AND ").join(part for part in parts if part)


def _models(graph: Graph, sampler: Node) -> tuple[list[str], str | None]:
    """The LoRAs on the way to the model, in the order in which they are added, and the model."""
    loras: list[str] = []
    start = graph.at(sampler, "model") or graph.at(graph.at(sampler, "guider") or sampler, "model")
    follow = ("model", "base_model", "model1", "basic_pipe", "pipe").__contains__
    for node in graph.upstream(start, follow) if start is not None else ():
        lora = graph.value(node, "lora_name")
        if lora not in (None, "", "None"):
            strength = graph.value(node, "strength_model", "lora_model_strength", "strength")
            loras.insert(0, f"{said(lora)}: {said(1.0 if strength is None else strength)}")
        name = graph.value(node, *MODEL_INPUTS)
        if isinstance(name, str):
            return loras, name
    return loras, None


def _latent(graph: Graph, sampler: Node) -> dict[str, str]:
    """The size that the chain begins with."""
    for node in graph.upstream(sampler, LATENTS.__contains__):
        size: Mapping[str, Any] = {
            name: graph.value(node, name, f"empty_latent_{name}") for name in ("width", "height")
        }
        if all(isinstance(side, int | float) for side in size.values()):
            return size_of(size)
    return {}


def _clip_skip(graph: Graph, sampler: Node) -> dict[str, str]:
    """ComfyUI counts layers from the end as -2, the web UIs as 2."""
    for node in graph.upstream(sampler, lambda name: name not in LATENTS):
        layer = graph.value(node, "stop_at_clip_layer", "clip_skip")
        if isinstance(layer, int) and layer < -1:
            return {"Clip skip": str(-layer)}
    return {}


def _vae(graph: Graph) -> str | None:
    names = [graph.value(node, "vae_name") for node in graph.nodes.values()]
    return next((name for name in names if isinstance(name, str) and name != "Baked VAE"), None)
