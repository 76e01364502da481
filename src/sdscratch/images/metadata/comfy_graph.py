"""ComfyUI's graph: nodes by name, whose inputs are values or links; from the API's form or the editor's.

A link is `[node, output]`. Everything here ends, whatever a stranger's graph says: circles are walked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdscratch.images.metadata.values import a_list, an_object

__all__ = ["Graph", "Node", "from_api", "from_editor"]

MOST_NODES = 10_000

# What the editor's form keeps without names: widgets by class, in their order; "" is the editor's own.
WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "RandomNoise": ("noise_seed", ""),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "PrimitiveNode": ("value", ""),
}


@dataclass(frozen=True)
class Node:
    """A node: its class, and its inputs, values or links."""

    name: str
    kind: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """Nodes by name."""

    nodes: Mapping[str, Node]

    def at(self, node: Node, name: str) -> Node | None:
        """The node that an input is linked to."""
        return self._target(node.inputs.get(name))

    def above(self, node: Node) -> Iterator[tuple[str, Node]]:
        """Every node that one is linked to, with the input's name."""
        for name, value in node.inputs.items():
            target = self._target(value)
            if target is not None:
                yield name, target

    def upstream(self, start: Node, follow: Callable[[str], bool] = lambda name: True) -> Iterator[Node]:
        """`start` and the nodes that it stands on, nearest first, by the inputs that `follow` allows."""
        seen, queue = {start.name}, [start]
        for node in queue:
            yield node
            for name, target in self.above(node):
                if follow(name) and target.name not in seen:
                    seen.add(target.name)
                    queue.append(target)

    def value(self, node: Node, *names: str) -> Any:
        """The value of the first of these inputs that has one, through links to nodes that hold values."""
        for name in names:
            found = self._value(node.inputs.get(name), name, set())
            if found is not None:
                return found
        return None

    def _value(self, value: Any, name: str, seen: set[str]) -> Any:
        target = self._target(value)
        if target is None:
            return None if isinstance(value, list | dict) else value
        if target.name in seen or len(seen) > 100:
            return None
        seen.add(target.name)
        for holder in (name, *HOLDERS):
            if holder in target.inputs:
                found = self._value(target.inputs[holder], holder, seen)
                if found is not None:
                    return found
        return None

    def _target(self, value: Any) -> Node | None:
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            return self.nodes.get(str(value[0]))
        return None


# What nodes that only hold or pass a value call it.
HOLDERS = ("value", "populated_text", "text", "string", "prompt", "seed", "int", "number", "input", "any")


def from_api(values: Mapping[str, Any]) -> Graph | None:
    """The graph as the API takes it (PNG's `prompt`); None for an object of another kind."""
    nodes: dict[str, Node] = {}
    for name, node in list(values.items())[:MOST_NODES]:
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return None
        nodes[name] = Node(name, node["class_type"], an_object(node.get("inputs")))
    return Graph(nodes) if nodes else None


def from_editor(values: Mapping[str, Any]) -> Graph | None:
    """The graph as the editor saves it (PNG's `workflow`); None for an object of another kind."""
    listed = values.get("nodes")
    if not isinstance(listed, list) or not isinstance(values.get("links"), list):
        return None
    links = {link[0]: [str(link[1]), link[2]] for link in values["links"] if _is_link(link)}
    nodes: dict[str, Node] = {}
    for node in map(an_object, listed[:MOST_NODES]):
        kind = str(node.get("type", ""))
        inputs: dict[str, Any] = {}
        held = node.get("widgets_values")
        if isinstance(held, dict):
            inputs |= held
        else:
            own = WIDGETS.get(kind, ("text",) if a_list(held) and isinstance(a_list(held)[0], str) else ())
            inputs |= {name: value for name, value in zip(own, a_list(held), strict=False) if name}
        for slot in map(an_object, a_list(node.get("inputs"))):
            link = slot.get("link")
            if isinstance(link, int) and link in links:
                inputs[str(slot.get("name"))] = links[link]
        nodes[str(node.get("id"))] = Node(str(node.get("id")), kind, inputs)
    return Graph(nodes)


def _is_link(link: Any) -> bool:
    return isinstance(link, list) and len(link) >= 5 and all(isinstance(part, int | str) for part in link[:3])
