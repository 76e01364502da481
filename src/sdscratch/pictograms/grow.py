"""Growing a trained model by one resolution, after Karras et al. (2018, section 2).

A small picture teaches composition, colours and words in a fraction of the time. The grown model begins as
the small one with enlarged pictures: a new outermost level that passes its input on, and new latent channels
that say nothing yet. Training goes on from there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.vae import Encoder
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.vocabulary import WORD_END
from sdscratch.training.tasks.autoencoder import Autoencoder, Reconstruction, Term
from sdscratch.training.tasks.diffusion import Diffusion

__all__ = ["grow_autoencoder", "grow_diffusion", "kept_meaning"]

NEW_LOG_VARIANCE = -4.0  # of new latent channels: noise that does not drown what they begin to say
NEW_LATENT_SHARE = 0.3  # of the usual random weights, by which a decoder begins to look at new channels


@torch.no_grad()
def grow_autoencoder(small: Autoencoder, large: Autoencoder) -> None:
    """Fill `large`, which has one more level in front and at least as many latent channels, from `small`.

    The new level of the encoder averages 2×2 pixels, the decoder's repeats each; their residual blocks begin
    as the identity. The first latent channels mean what they meant.

    Raises:
        RuntimeError: the other levels differ in shape.
    """
    old, new = small.config.latent_channels, large.config.latent_channels
    _grow_encoder(small.encoder, large.encoder, old, new)
    _grow_decoder(small.decoder, large.decoder, old)


def _grow_encoder(small: Any, large: Any, old: int, new: int) -> None:
    for name in ("conv_in", "middle", "norm_out"):
        _copy(small, large, name)
    outer, *inner = large.down
    for level, grown in zip(small.down, inner, strict=True):
        grown.load_state_dict(level.state_dict())
    _silence(outer)
    halve = outer.resample.conv
    halve.weight.zero_()
    halve.weight[:, :, :2, :2] = _identity(halve.weight) / 4
    halve.bias.zero_()

    # means, new means, log-variances, new log-variances
    rows = torch.tensor([*range(old), *range(new, new + old)])
    large.conv_out.weight[rows] = small.conv_out.weight
    large.conv_out.bias[rows] = small.conv_out.bias
    large.quant.weight.copy_(_identity(large.quant.weight))
    large.quant.weight[rows[:, None], rows] = small.quant.weight
    large.quant.bias.zero_()
    large.quant.bias[rows] = small.quant.bias
    large.quant.bias[new + old :] = NEW_LOG_VARIANCE


def _grow_decoder(small: Any, large: Any, old: int) -> None:
    for name in ("middle", "norm_out", "conv_out"):
        _copy(small, large, name)
    *inner, outer = large.up
    for level, grown in zip(small.up, inner, strict=True):
        grown.blocks.load_state_dict(level.blocks.state_dict())
        if level.resample is not None:
            grown.resample.load_state_dict(level.resample.state_dict())
    _silence(outer)
    repeat = inner[-1].resample.conv
    repeat.weight.zero_()
    repeat.weight[:, :, 1:2, 1:2] = _identity(repeat.weight)
    repeat.bias.zero_()

    large.quant.weight.copy_(_identity(large.quant.weight))
    large.quant.weight[:old, :old] = small.quant.weight
    large.quant.bias.zero_()
    large.quant.bias[:old] = small.quant.bias
    large.conv_in.weight.mul_(NEW_LATENT_SHARE)
    large.conv_in.weight[:, :old] = small.conv_in.weight
    large.conv_in.bias.copy_(small.conv_in.bias)


def kept_meaning(small: Encoder) -> Term:
    """A term of the loss: how far the first latent channels are from what the small encoder says.

    It says it of the picture at half its size, which is what a small model would have been shown. With this
    term the U-Net, too, can begin with the small one's weights.
    """

    def drift(made: Reconstruction) -> Tensor:
        with torch.no_grad():
            meant = small(F.avg_pool2d(made.picture, 2)).mean
        difference: Tensor = made.posterior.mean[:, : meant.shape[1]] - meant
        return difference.square().mean()

    return drift


@torch.no_grad()
def grow_diffusion(small: Diffusion, large: Diffusion, old: Tokenizer, new: Tokenizer) -> None:
    """Fill `large` from `small`, which may differ in latent channels, prompt length and vocabulary.

    The U-Net neither sees new latent channels at first nor predicts anything for them. A token that both
    tokenizers know keeps its embedding; a new one begins as the mean of those that the old tokenizer cuts it
    into.

    Raises:
        RuntimeError: the networks differ in another way.
    """
    kept, grown = small.state_dict(), large.state_dict()
    special = ("text.tokens.weight", "text.positions.weight")
    for name, value in grown.items():
        if value.shape == kept[name].shape and name not in special:
            value.copy_(kept[name])
        elif name not in special:
            value.zero_()
            value[tuple(slice(0, n) for n in kept[name].shape)] = kept[name]
    length = min(old.length, new.length)
    large.text.positions.weight[:length] = small.text.positions.weight[:length]
    large.text.positions.weight[length:] = small.text.positions.weight[length - 1]
    _grow_vocabulary(small.text.tokens.weight, large.text.tokens.weight, old, new)


def _grow_vocabulary(small: Tensor, large: Tensor, old: Tokenizer, new: Tokenizer) -> None:
    for piece, index in new.vocabulary.ids.items():
        if piece in old.vocabulary.ids:
            large[index] = small[old.vocabulary.ids[piece]]
        elif parts := old.encode(piece.removesuffix(WORD_END)).ids[1:-1]:
            large[index] = small[list(parts)].mean(0)


def _copy(small: nn.Module, large: nn.Module, name: str) -> None:
    large.get_submodule(name).load_state_dict(small.get_submodule(name).state_dict())


def _silence(level: Any) -> None:
    """Make residual blocks of equal width the identity."""
    for block in level.blocks:
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()


def _identity(weight: Tensor) -> Tensor:
    """[c, c, 1, 1], for a convolution's weight of [c, c, ·, ·]."""
    return torch.eye(weight.shape[0], dtype=weight.dtype)[:, :, None, None]
