"""The U-Net's pass with less to compute: what guidance doubles once, and what changes slowly not at all.

Both ways share the modules of the plain U-Net, and its weights. Shapes are those of `models.unet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdscratch.hardware import device_kind
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.control import Context
from sdscratch.models.layers import ResidualBlock, Upsample, plus, silu
from sdscratch.models.unet import SpatialTransformer, TransformerBlock, UNet, with_channels

__all__ = ["FastUNet"]

OUTER = 1  # groups at either end of the U-Net that run even where the deeper ones are left out


class FastUNet(UNet):
    """A U-Net that takes over all that a plain one is made of.

    Guidance predicts every picture twice, with one prompt and with the other. Until a picture meets its
    prompt, in the first cross-attention, both are the same: on a CPU they are computed once.
    """

    def __init__(self, plain: UNet) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= plain.__dict__  # the very modules: what is replaced here is gone there, too

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict; arguments as of `UNet.forward`."""
        return self.predict(x, timesteps, conditioning)[0]

    def predict(
        self, x: Tensor, timesteps: Tensor, conditioning: Conditioning, deep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict, and tell what came up from the deeper groups.

        Args:
            x, timesteps, conditioning: as of `UNet.forward`.
            deep: the deep features of an earlier pass on the same batch: all but the outermost groups are
                then left out (DeepCache; Ma et al. 2023, section 3.2), which is an approximation.

        Returns:
            [n, 4, h, w]: what `forward` gives; and the deep features.
        """
        time, added = self.embed(timesteps, conditioning, x.dtype), conditioning.residuals(x, timesteps)
        context = added.onto_context(conditioning.context)
        x = with_channels(x, conditioning.concat)
        if not added.levels:
            x = x[: distinct(x, timesteps, conditioning)]
        skips: list[Tensor] = []
        outermost = len(self.down) if deep is None else OUTER  # as many on the way up
        for number, group in enumerate(self.down[:outermost]):
            x = added.onto_level(run_group(group, x, time, context), self.level_ends.get(number))
            skips.append(x)
        if deep is None:
            for group in self.middle:
                x = run_group(group, x, time, context)
            x = added.onto_middle(x)
        for group in self.up[-outermost:]:
            if len(skips) == OUTER:
                x = deep = x if deep is None else deep
            x = torch.cat([x, added.onto_skip(twice(skips.pop(), x), len(skips))], dim=1)
            x = run_group(group, x, time, context, skips[-1].shape[2:] if skips else None)
        assert deep is not None  # every U-Net has more groups than the outermost
        return self.conv_out(silu(self.norm_out(x))), deep


def distinct(x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> int:
    """How many of a batch's pictures differ: half, where guidance has doubled it, and else all.

    Only on a CPU, where looking is nothing (a GPU would have to be waited for), and only in 16 bits: in
    float32 the last bit of small products depends on where in memory the weights lie, and a baked model
    would no longer give the very picture of its LoRA.
    """
    half, odd = divmod(len(x), 2)
    if device_kind(x.device) != "cpu" or x.dtype == torch.float32 or odd:
        return len(x)
    told = conditioning.pooled, conditioning.sizes, conditioning.guidance
    compared = (timesteps, x, *told)  # all that is met before the context
    same = all(torch.equal(each[:half], each[half:]) for each in compared if each is not None)
    return half if same else len(x)


def twice(x: Tensor, whole: Context) -> Tensor:
    """x, repeated to the length of the whole batch where it stands for both halves."""
    return x if len(x) == len(whole) else torch.cat([x, x])


def run_group(
    group: nn.Module, x: Tensor, time: Tensor, context: Context, size: torch.Size | None = None
) -> Tensor:
    """`models.unet.run_group` on the whole batch or on the half that stands for both."""
    assert isinstance(group, nn.ModuleList)
    for block in group:
        match block:
            case ResidualBlock():
                x = block(x, time[: len(x)])
            case SpatialTransformer() if len(x) < len(context):
                x = meet(block, x, context)
            case SpatialTransformer():
                x = block(x, context)
            case Upsample():
                x = block(x, size)
            case _:
                x = block(x)
    return x


def meet(transformer: SpatialTransformer, x: Tensor, context: Context) -> Tensor:
    """A transformer on half a batch [n/2, c, h, w] → [n, c, h, w]: here the halves become different."""
    tokens = transformer.enter(x)
    first, *others = transformer.blocks
    assert isinstance(first, TransformerBlock)
    normed = first.norm1(tokens)
    tokens = twice(plus(first.self_attention(normed, normed), tokens), context)
    tokens = plus(first.cross_attention(first.norm2(tokens), context), tokens)
    tokens = plus(first.feed_forward(first.norm3(tokens)), tokens)
    for block in others:
        tokens = block(tokens, context)
    return plus(transformer.leave(tokens, x.shape[2:]), twice(x, tokens))
