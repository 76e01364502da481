"""The config.json files of a diffusers folder, to and from our configurations.

A folder's files can ask for far more than Stable Diffusion 1.x; each table below says what must hold for our
networks to compute the same thing. What differs is refused by name: a value that is silently ignored gives a
wrong picture. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdscratch.errors import CheckpointError
from sdscratch.models.config import (
    AutoencoderConfig,
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
)

__all__ = ["autoencoder_config", "from_folder", "to_folder"]

Record = Mapping[str, Any]

# What our networks compute; where several values mean the same, the first is the one written.
UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
    "norm_eps": (1e-5,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "projection_class_embeddings_input_dim": (None,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "transformer_layers_per_block": (1,),
    "use_linear_projection": (False,),
}
VAE_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "in_channels": (3,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "out_channels": (3,),
    "shift_factor": (None, 0, 0.0),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}
TEXT_FIXED: Mapping[str, tuple[Any, ...]] = {
    "layer_norm_eps": (1e-5,),
    "model_type": ("clip_text_model",),
}
SCHEDULER_FIXED: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("scaled_linear",),
    "trained_betas": (None,),
}

# What changes nothing in the picture: sizes for others to begin with, training's dropout, precision advice.
WITHOUT_EFFECT = frozenset({"sample_size", "dropout", "upcast_attention", "force_upcast"}) | {
    "addition_embed_type_num_heads"  # heads of something that UNET_FIXED says is not there
}

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
ATTENDS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP_BLOCK = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}


class _Reader:
    """One config.json: values by key in the type they must have; an error names file, key and value."""

    def __init__(self, name: str, record: Record, fixed: Mapping[str, tuple[Any, ...]]) -> None:
        self.name, self.record, self.fixed = name, record, fixed
        self.asked: set[str] = set()
        for key, accepted in fixed.items():
            if key in record and self._uniform(key) not in accepted:
                self.refuse(key, f"sdscratch computes only {accepted[0]!r}")

    def _uniform(self, key: str) -> Any:
        """The value; of a list that says the same for every level, its element."""
        value = self.record[key]
        return value[0] if isinstance(value, list) and value and all(v == value[0] for v in value) else value

    def refuse(self, key: str, why: str) -> None:
        raise CheckpointError(f"{self.name} says {key}: {self.record.get(key)!r}; {why}")

    def get(self, key: str, kind: Callable[[Any], Any], default: Any) -> Any:
        """The value of `key`, or diffusers' own default where it is not there."""
        self.asked.add(key)
        if key not in self.record:
            return default
        value = self._uniform(key) if kind in (int, float) else self.record[key]
        wanted = (list,) if kind is tuple else (int, float) if kind is float else (kind,)
        if type(value) not in wanted:
            self.refuse(key, f"expected {kind.__name__}")
        return kind(value)

    def optional(self, key: str) -> int | None:
        """A whole number that may be null."""
        return None if self.record.get(key) is None else self.get(key, int, 0)

    def widths(self) -> tuple[int, tuple[int, ...]]:
        """block_out_channels as a width and its multiples."""
        widths = self.get("block_out_channels", tuple, (64,))
        if not widths or not all(type(w) is int and w > 0 and w % widths[0] == 0 for w in widths):
            self.refuse("block_out_channels", "expected multiples of the first")
        return widths[0], tuple(w // widths[0] for w in widths)

    def refuse_unknown(self) -> None:
        """Whatever else is set to something asks for what we do not know."""
        known = self.asked | self.fixed.keys() | WITHOUT_EFFECT
        for key, value in self.record.items():
            if key not in known and not key.startswith("_") and value:
                self.refuse(key, "sdscratch does not know this setting")


def _unet(record: Record) -> UNetConfig:
    read = _Reader("unet/config.json", record, UNET_FIXED)
    channels, multipliers = read.widths()
    inputs = read.get("in_channels", int, 4)
    if inputs != read.get("out_channels", int, 4):
        kind = {9: "an inpainting model", 8: "an instruct-pix2pix model"}.get(inputs, "another kind of model")
        read.refuse("in_channels", f"that is {kind}; sdscratch reads plain Stable Diffusion 1.x")
    down = read.get("down_block_types", tuple, ())
    if len(down) != len(multipliers) or not all(kind in ATTENDS for kind in down):
        read.refuse("down_block_types", f"expected {len(multipliers)} of {', '.join(ATTENDS)}")
    attends = tuple(ATTENDS[kind] for kind in down)
    up = read.get("up_block_types", tuple, ())
    if list(up) != [UP_BLOCK[level] for level in reversed(attends)]:
        read.refuse("up_block_types", "expected the mirror image of down_block_types")
    config = UNetConfig(
        in_channels=inputs,
        out_channels=inputs,
        channels=channels,
        multipliers=multipliers,
        attends=attends,
        residual_blocks=read.get("layers_per_block", int, 2),
        heads=read.get("attention_head_dim", int, 8),  # diffusers' name for it is an old mistake that stayed
        context=read.get("cross_attention_dim", int, 1280),
        norm_groups=read.get("norm_num_groups", int, 32),
        middle=record.get("mid_block_type", "") is not None,
        guidance=read.optional("time_cond_proj_dim"),
    )
    read.refuse_unknown()
    return config


def autoencoder_config(record: Record) -> AutoencoderConfig:
    """The shape of a VAE by its config.json.

    Raises:
        CheckpointError: it asks for what our networks do not compute.
    """
    read = _Reader("vae/config.json", record, VAE_FIXED)
    channels, multipliers = read.widths()
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if read.get(key, tuple, (kind,)) != (kind,) * len(multipliers):
            read.refuse(key, f"expected {len(multipliers)} times {kind}")
    config = AutoencoderConfig(
        channels=channels,
        multipliers=multipliers,
        residual_blocks=read.get("layers_per_block", int, 1),
        latent_channels=read.get("latent_channels", int, 4),
        latent_scale=read.get("scaling_factor", float, 0.18215),
        norm_groups=read.get("norm_num_groups", int, 32),
    )
    read.refuse_unknown()
    return config


def _text(record: Record) -> TextEncoderConfig:
    read = _Reader("text_encoder/config.json", record, TEXT_FIXED)
    activation = read.get("hidden_act", str, "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        read.refuse("hidden_act", "sdscratch computes quick_gelu and gelu")
    return TextEncoderConfig(
        vocabulary=read.get("vocab_size", int, 49408),
        length=read.get("max_position_embeddings", int, 77),
        width=read.get("hidden_size", int, 512),
        layers=read.get("num_hidden_layers", int, 12),
        heads=read.get("num_attention_heads", int, 8),
        feed_forward=read.get("intermediate_size", int, 2048),
        activation=activation,
    )


def _schedule(record: Record) -> ScheduleConfig:
    read = _Reader("scheduler/scheduler_config.json", {"beta_schedule": "linear", **record}, SCHEDULER_FIXED)
    prediction = read.get("prediction_type", str, "epsilon")
    if prediction not in PREDICTIONS:
        read.refuse("prediction_type", f"sdscratch knows {', '.join(PREDICTIONS)}")
    return ScheduleConfig(
        timesteps=read.get("num_train_timesteps", int, 1000),
        beta_start=read.get("beta_start", float, 0.0001),
        beta_end=read.get("beta_end", float, 0.02),
        prediction="v" if prediction == "v_prediction" else "epsilon",
        zero_snr=read.get("rescale_betas_zero_snr", bool, False),
    )


def from_folder(
    unet: Record, vae: Record | None, text_encoder: Record, scheduler: Record | None
) -> ModelConfig:
    """Our configuration of a diffusers folder's JSON files.

    Without a VAE's or a scheduler's, Stable Diffusion 1.x's.

    Raises:
        CheckpointError: a value that our networks do not compute, with its file and name.
    """
    return ModelConfig(
        _text(text_encoder),
        _unet(unet),
        AutoencoderConfig() if vae is None else autoencoder_config(vae),
        ScheduleConfig() if scheduler is None else _schedule(scheduler),
    )


def _written(fixed: Mapping[str, tuple[Any, ...]], **free: Any) -> dict[str, Any]:
    """Our fixed values, and what a configuration says, also beyond them."""
    return {key: accepted[0] for key, accepted in fixed.items()} | free


def _unet_record(unet: UNetConfig, latent_side: int) -> dict[str, Any]:
    levels = range(len(unet.multipliers))
    more: dict[str, Any] = {}
    if unet.projection == "linear":
        more["use_linear_projection"] = True
    if unet.depth != 1:
        more["transformer_layers_per_block"] = [unet.depth_at(level) for level in levels]
    if unet.pooled is not None:
        more["addition_embed_type"] = "text_time"
        more["addition_time_embed_dim"] = unet.size_width
        more["projection_class_embeddings_input_dim"] = unet.pooled + unet.sizes * unet.size_width
    if not unet.middle:
        more["mid_block_type"] = None
    one = unet.head_width is None and isinstance(unet.heads, int)
    return _written(
        UNET_FIXED,
        _class_name="UNet2DConditionModel",
        sample_size=latent_side,
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
        block_out_channels=[unet.channels * m for m in unet.multipliers],
        down_block_types=[
            kind for level in unet.attends for kind, attends in ATTENDS.items() if attends is level
        ],
        up_block_types=[UP_BLOCK[level] for level in reversed(unet.attends)],
        layers_per_block=unet.residual_blocks,
        # diffusers' name for the number of heads is an old mistake that stayed
        attention_head_dim=unet.heads if one else [unet.heads_at(level) for level in levels],
        cross_attention_dim=unet.context,
        time_cond_proj_dim=unet.guidance,
        norm_num_groups=unet.norm_groups,
        **more,
    )


def _text_record(text: TextEncoderConfig) -> dict[str, Any]:
    return _written(
        TEXT_FIXED,
        architectures=["CLIPTextModel" if text.projection is None else "CLIPTextModelWithProjection"],
        vocab_size=text.vocabulary,
        max_position_embeddings=text.length,
        hidden_size=text.width,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        intermediate_size=text.feed_forward,
        hidden_act=text.activation,
        projection_dim=text.projection or text.width,
    )


def to_folder(config: ModelConfig, side: int) -> dict[str, dict[str, Any]]:
    """The JSON files of a diffusers folder by their path in it; `side` is the picture's usual one in pixels.

    The scheduler is Stable Diffusion 1.5's published one, PNDM, with the model's betas.
    """
    texts = {"" if index == 0 else f"_{index + 1}": text for index, text in enumerate(config.texts)}
    unet, vae, schedule = config.unet, config.autoencoder, config.schedule
    levels = len(vae.multipliers)
    return {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "unet/config.json": _unet_record(unet, side // vae.downscale),
        "vae/config.json": _written(
            VAE_FIXED,
            _class_name="AutoencoderKL",
            sample_size=side,
            block_out_channels=[vae.channels * m for m in vae.multipliers],
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=vae.residual_blocks,
            latent_channels=vae.latent_channels,
            scaling_factor=vae.latent_scale,
            norm_num_groups=vae.norm_groups,
        ),
        **{f"text_encoder{number}/config.json": _text_record(text) for number, text in texts.items()},
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler",
            "beta_schedule": "scaled_linear",
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "clip_sample": False,
            "num_train_timesteps": schedule.timesteps,
            **({"rescale_betas_zero_snr": True} if schedule.zero_snr else {}),
            "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[schedule.prediction],
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "trained_betas": None,
        },
    }
