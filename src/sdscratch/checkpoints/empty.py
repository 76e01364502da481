"""Networks without numbers: built on the meta device, ready to be given the tensors of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from sdscratch.checkpoints.layouts import Part
from sdscratch.models.clip import TextEncoder
from sdscratch.models.config import ModelConfig
from sdscratch.models.unet import UNet
from sdscratch.models.vae import Decoder, Encoder

__all__ = ["empty", "empty_network", "placed"]

Network = TypeVar("Network", bound=nn.Module)

NETWORKS: Mapping[Part, Callable[[ModelConfig], nn.Module]] = {
    "text": lambda config: TextEncoder(config.texts[0]),
    "text2": lambda config: TextEncoder(config.texts[1]),
    "unet": lambda config: UNet(config.unet),
    "encoder": lambda config: Encoder(config.autoencoder),
    "decoder": lambda config: Decoder(config.autoencoder),
}

DRAWS = frozenset({init.kaiming_uniform_, init.normal_, init.uniform_})


class _WithoutDrawing(TorchFunctionMode):
    """Leave out the random numbers of new layers.

    Even on the meta device, where nothing is drawn, asking for them makes torch import its symbolic shapes
    and all of sympy: a second of every start.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS:
            return kwargs.get("tensor", args[0] if args else None)
        return func(*args, **kwargs)


def empty_network(part: Part, config: ModelConfig) -> nn.Module:
    """One network of a model, on the meta device."""
    return empty(lambda: NETWORKS[part](config))


def empty(make: Callable[[], Network]) -> Network:
    """What `make` makes, on the meta device."""
    with torch.device("meta"), _WithoutDrawing():
        return make()


def placed(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A file's tensor as a network has it, made in one pass; itself where nothing is to be done.

    A convolution's weights are channels_last, a position's channels side by side: it runs fastest so.
    """
    if tensor.dim() != 4:
        return tensor.to(device, dtype)
    return tensor.to(device, dtype, memory_format=torch.channels_last)
