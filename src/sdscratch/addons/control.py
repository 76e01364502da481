"""Controls as they are asked for: the file told apart and opened, the hint read and made. No torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdscratch.addons.control_files import ControlFile, OpenedFiles, opened_files
from sdscratch.addons.control_requests import ControlRequest, parse_control
from sdscratch.addons.controlnet import CONTROLNETS, open_controlnet
from sdscratch.addons.ip_adapter import ImagePromptFile, facts_of, open_image_prompt
from sdscratch.addons.t2i_adapter import ADAPTERS, open_adapter
from sdscratch.checkpoints.layouts.controlnet import PREFIX, hint_widths
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.places import find_control
from sdscratch.errors import CheckpointError
from sdscratch.images import ControlRecord, picture_hash
from sdscratch.images.hints import read_hint
from sdscratch.tensorfiles.identify import Kind

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "CONTROLS",
    "Controls",
    "OpenedControl",
    "as_requests",
    "network_name",
    "open_control",
    "open_controls",
    "open_file",
    "told_of",
]


Controls = str | ControlRequest | Sequence[str | ControlRequest]  # as Python asks for them

OUTPUTS = r"(zero_convs\.\d+\.0|middle_block_out\.0|controlnet_down_blocks\.\d+|controlnet_mid_block)\.weight"
PIXELS = 64  # of the hint, a position of an adapter's first level


@dataclass(frozen=True, eq=False)
class OpenedControl:
    """A control with its hint; its network is in no memory yet."""

    request: ControlRequest
    file: ControlFile
    hint: Image  # RGB, or RGBA
    hash: str  # `picture_hash` of the hint's picture as it was read

    def record(self) -> ControlRecord:
        """What a picture's record says of it."""
        request, files = self.request, self.file.files
        return ControlRecord(
            files.name,
            files.hash(),
            self.hash,
            request.weight,
            request.start,
            request.end,
            request.mode,
            request.preprocess,
            files.webui_hash(),
            self.file.encoder.files.hash() if isinstance(self.file, ImagePromptFile) else None,
        )


def as_requests(controls: Controls) -> list[ControlRequest]:
    """What was asked for, read.

    Raises:
        UsageError: it makes no sense.
    """
    each = [controls] if isinstance(controls, str | ControlRequest) else controls
    return [parse_control(one) if isinstance(one, str) else one for one in each]


def open_controls(
    controls: Controls,
    model: ModelFiles,
    background: str = "white",
) -> tuple[OpenedControl, ...]:
    """Find, open and check controls for a model, and read their hints.

    Args:
        background: the colour under a hint's transparent parts.

    Raises:
        UsageError: one is asked for in a way that makes no sense.
        CheckpointError: a file is missing, unreadable, refused, or made for another kind of model.
        ImageError: a hint is missing or unreadable.
    """
    return tuple(open_control(request, model, background) for request in as_requests(controls))


def open_control(request: ControlRequest, model: ModelFiles, background: str = "white") -> OpenedControl:
    """One of them; arguments and errors as of `open_controls`."""
    file = open_file(opened_files(find_control(request.name)), model, request.encoder)
    picture = read_hint(request.image, request.preprocess, background)
    return OpenedControl(request, file, picture, picture_hash(picture))


def open_file(files: OpenedFiles, model: ModelFiles, encoder: str | None = None) -> ControlFile:
    """A control's file, whichever kind it is.

    Args:
        encoder: an IP-Adapter's image encoder, where it is said.

    Raises:
        CheckpointError: it is none, or one for another kind of model.
    """
    identity = files.identity
    if identity.kind in CONTROLNETS:
        return open_controlnet(files, model)
    if identity.kind in ADAPTERS:
        return open_adapter(files, model)
    if identity.kind is Kind.IP_ADAPTER:
        return open_image_prompt(files, model, encoder)
    raise CheckpointError(
        f"{files.path} is {identity}; --control takes ControlNets and adapters for Stable Diffusion 1.x"
    )


CONTROLS = (*CONTROLNETS, *ADAPTERS, Kind.IP_ADAPTER)


def told_of(files: OpenedFiles) -> dict[str, Any]:
    """What `info` says of a control's file beyond its kind."""
    shapes = {name.removeprefix(PREFIX): stored.info.shape for name, stored in files.tensors.items()}
    if files.identity.kind is Kind.IP_ADAPTER:
        return facts_of(files)
    if files.identity.kind in CONTROLNETS:
        channels, widths = hint_widths(shapes)
        facts: dict[str, Any] = {"hint_channels": channels, "hint_widths": list(widths)}
        outputs = [name for name in shapes if re.fullmatch(OUTPUTS, name)]
        return facts | {"outputs": len(outputs)}
    for name in ("conv_in.weight", "body.0.in_conv.weight"):
        shape = shapes.get(name, shapes.get(f"adapter.{name}", ()))
        if len(shape) == 4:
            return {"hint_channels": shape[1] // PIXELS}
    return {}


def network_name(file: ControlFile) -> str:
    """What `generation.networks` calls a control's network: one file that is there twice is one network."""
    return f"control {file.files.path}"
