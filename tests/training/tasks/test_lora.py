"""Training LoRAs: adapters change nothing at first, then exactly what their file changes; the base stays."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from sdscratch.addons.apply import open_with_addons
from sdscratch.addons.lora import open_lora
from sdscratch.addons.lora_names import places
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.errors import UsageError
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import SD1
from sdscratch.training.engine.gradient_checkpointing import recompute_blocks
from sdscratch.training.run.lora_options import TARGETS, LoraPlan, parse_targets
from sdscratch.training.tasks.lora import Adapted, Adapter, adapt, save_lora
from support.checkpoints import TINY

EVERYTHING = LoraPlan(rank=3, alpha=2.0, targets=tuple(TARGETS), text_encoder=True)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelFiles:
    return open_model(tiny_model)


def networks(model: ModelFiles, dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    return {part: model.load(part, "cpu", dtype) for part in ("text", "unet")}  # type: ignore[arg-type]


def randomise(adapters: nn.Module, seed: int = 0) -> None:
    """As if trained: `up` is no longer 0."""
    rng = torch.Generator().manual_seed(seed)
    for adapter in adapters.children():
        nn.init.normal_(adapter.lora_up.weight, std=0.2, generator=rng)


def predict(parts: dict[str, nn.Module], batch: int = 2) -> Tensor:
    rng = torch.Generator().manual_seed(5)
    dtype = next(parts["unet"].parameters()).dtype
    ids = torch.randint(0, TINY.text.vocabulary, (batch, 77), generator=rng)
    x = torch.randn(batch, 4, 16, 16, generator=rng).to(dtype)
    timesteps = torch.linspace(10, 900, batch)
    return parts["unet"](x, timesteps, Conditioning(parts["text"](ids)))


def save(path: Path, adapters: nn.Module, plan: LoraPlan) -> Path:
    save_lora(
        path, adapters.state_dict(), plan, base_name="tiny", base_hash="0123456789", provenance={"steps": 7}
    )
    return path


# --- What is changed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "unet", "text"),
    [("attention", 128, 48), ("feed-forward", 32, 24), ("convolution", 96, 0), ("all", 256, 72)],
)
def test_of_stable_diffusion_what_the_targets_say(targets: str, unet: int, text: int) -> None:
    chosen = LoraPlan(targets=parse_targets(targets), text_encoder=True).chosen(SD1)
    assert [sum(w.part == part for w in chosen) for part in ("unet", "text")] == [unet, text]
    alone = LoraPlan(targets=parse_targets(targets)).chosen(SD1)
    assert alone == [w for w in chosen if w.part == "unet"]


def test_no_targets_overlap_and_only_ends_are_left_out() -> None:
    sets = [set(LoraPlan(targets=(name,), text_encoder=True).chosen(SD1)) for name in TARGETS]
    assert sum(map(len, sets)) == len(set.union(*sets))
    layers = {target.weight for target in places(SD1).values()}
    matrices = {w for w in layers if len(w.shape) > 1 and "_embedding.weight" not in w.diffusers}
    rest = {w.diffusers for w in matrices - set.union(*sets)}
    ends = ("unet/conv_in", "unet/conv_out", "unet/time_embedding")
    assert all(name.startswith(ends) or "time_emb_proj" in name for name in rest)


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"rank": 1025}, {"alpha": 0.0}, {"alpha": float("nan")}, {"targets": ()}],
)
def test_plans_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="must be"):
        LoraPlan(**wrong)  # type: ignore[arg-type]


def test_targets_are_words_in_any_order() -> None:
    assert parse_targets("convolution, attention") == ("attention", "convolution")
    assert parse_targets("all") == tuple(TARGETS)
    with pytest.raises(UsageError, match="'attention,heads'"):
        parse_targets("heads,attention")


# --- What is computed --------------------------------------------------------------------------------------


def test_at_the_start_nothing_changes_and_only_adapters_are_trained(model: ModelFiles) -> None:
    parts = networks(model)
    before = predict(parts)
    adapters = adapt(parts, TINY, EVERYTHING, seed=1)
    assert torch.equal(predict(parts), before)
    trained = {id(p) for part in parts.values() for p in part.parameters() if p.requires_grad}
    assert trained == {id(p) for p in adapters.parameters()}
    assert len(adapters) == len(EVERYTHING.chosen(TINY))


def test_a_convolution_and_a_matrix_are_changed_by_alpha_over_rank_times_up_times_down() -> None:
    rng = torch.Generator().manual_seed(0)
    for base, x in (
        (nn.Conv2d(6, 8, 3, stride=2, padding=1), torch.randn(2, 6, 9, 9, dtype=torch.double)),
        (nn.Conv2d(6, 8, 1), torch.randn(2, 6, 5, 5, dtype=torch.double)),
        (nn.Linear(6, 8), torch.randn(2, 7, 6, dtype=torch.double)),
    ):
        adapter = Adapter(base, LoraPlan(rank=4, alpha=6.0), rng)
        nn.init.normal_(adapter.lora_up.weight)
        both = Adapted(base, adapter).double()
        merged = both.base
        expected = both(x)
        change = torch.einsum("or,r...->o...", adapter.lora_up.weight.flatten(1), adapter.lora_down.weight)
        with torch.no_grad():
            merged.weight += 6.0 / 4 * change.reshape(merged.weight.shape)
        assert_close(merged(x), expected)


@pytest.mark.parametrize("targets", [*TARGETS, "all"])
def test_the_file_merged_gives_what_the_adapters_gave(
    model: ModelFiles, tmp_path: Path, targets: str
) -> None:
    plan = LoraPlan(rank=3, alpha=2.0, targets=parse_targets(targets), text_encoder=True)
    parts = networks(model)
    before = predict(parts)
    adapters = adapt(parts, TINY, plan, seed=1)
    randomise(adapters)
    path = save(tmp_path / "lora.safetensors", adapters, plan)
    merged = networks(open_with_addons(model.path, lora=str(path)))
    assert_close(predict(merged), predict(parts), rtol=1e-4, atol=1e-4)
    assert (predict(parts) - before).abs().max() > 0.05
    inner = [w for w in weights(TINY) if w.part in merged]
    changed = {w for w in inner if not torch.equal(merged[w.part].get_parameter(w.name), model.read(w))}
    assert changed == set(plan.chosen(TINY))


def test_a_bfloat16_base_stays_as_it_is_under_float32_adapters(model: ModelFiles) -> None:
    parts = networks(model, torch.bfloat16)
    adapters = adapt(parts, TINY, EVERYTHING, seed=1)
    frozen = {n: p.clone() for n, p in parts["unet"].named_parameters() if not p.requires_grad}
    optimiser = torch.optim.AdamW(adapters.parameters(), lr=1e-5)  # far below what bfloat16 can tell from 1
    for _ in range(2):
        predict(parts).float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert {p.dtype for p in adapters.parameters()} == {torch.float32}
    assert all((a.lora_up.weight != 0).any() for a in adapters.children())
    assert all(torch.equal(p, frozen[n]) for n, p in parts["unet"].named_parameters() if n in frozen)


def test_the_start_depends_on_the_seed_alone(model: ModelFiles) -> None:
    one, same, other = (adapt(networks(model), TINY, EVERYTHING, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    downs = [name for name in one if name.endswith("lora_down.weight")]
    assert not any(torch.equal(one[name], other[name]) for name in downs)


# --- Recomputing -------------------------------------------------------------------------------------------


def gradients(model: ModelFiles, *, recomputed: bool) -> tuple[list[Tensor], int]:
    """The adapters' gradients of one step, and how many bytes were kept for them."""
    parts = networks(model)
    plan = LoraPlan(targets=tuple(TARGETS), text_encoder=True)
    adapters = adapt(parts, TINY, plan, seed=1)
    randomise(adapters)
    for network in parts.values():
        if recomputed:
            recompute_blocks(network)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for network in parts.values() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = predict(parts).square().mean()
    bytes_kept = sum(size for place, size in kept.items() if place not in own)
    loss.backward()
    return [p.grad for p in adapters.parameters() if p.grad is not None], bytes_kept


def test_recomputed_gradients_are_the_same_and_less_is_kept(model: ModelFiles) -> None:
    plain, much = gradients(model, recomputed=False)
    again, little = gradients(model, recomputed=True)
    assert len(plain) == len(again) > 0
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert little < much / 3


def test_copies_recompute_their_own_blocks(model: ModelFiles) -> None:
    network = networks(model)["unet"]
    adapt({"unet": network}, TINY, LoraPlan(), seed=1)
    recompute_blocks(network)
    copied = copy.deepcopy(network)
    inputs = torch.randn(1, 4, 8, 8), torch.ones(1), Conditioning(torch.randn(1, 5, 32))
    copied(*inputs).sum().backward()
    reached = {n for n, p in copied.named_parameters() if p.grad is not None}
    assert reached == {n for n, p in copied.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in network.parameters())


# --- The file ----------------------------------------------------------------------------------------------


@pytest.fixture
def written(model: ModelFiles, tmp_path: Path) -> Path:
    adapters = adapt(networks(model), TINY, EVERYTHING, seed=1)
    randomise(adapters)
    return save(tmp_path / "new.safetensors", adapters, EVERYTHING)


def test_the_file_holds_what_others_look_for(written: Path) -> None:
    tensors = load_file(written)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{name}.lora_down.weight"].shape == (3, 16)
    assert tensors[f"{name}.lora_up.weight"].shape == (16, 3)
    assert tensors[f"{name}.alpha"] == 2.0
    assert tensors[f"{name}.alpha"].shape == ()
    assert tensors["lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight"].shape == (3, 16, 3, 3)
    assert tensors["lora_unet_down_blocks_0_downsamplers_0_conv.lora_up.weight"].shape == (16, 3, 1, 1)
    assert "lora_te_text_model_encoder_layers_1_self_attn_out_proj.lora_up.weight" in tensors
    with safe_open(written, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_dim"] == "3"
    assert metadata["ss_network_alpha"] == "2.0"
    assert metadata["ss_new_sd_model_hash"] == "0123456789"
    assert json.loads(metadata["ss_network_args"])["conv_dim"] == "3"
    provenance = json.loads(metadata["sdscratch.provenance"])
    assert provenance == {"steps": 7, "base": "tiny", "base_hash": "0123456789"}


def test_every_module_of_the_file_finds_its_place_again(written: Path) -> None:
    assert set(open_lora(written, TINY).modules) == set(EVERYTHING.chosen(TINY))


def test_a_file_that_exists_is_not_replaced_unasked(written: Path, model: ModelFiles) -> None:
    before = written.read_bytes()
    adapters = adapt(networks(model), TINY, LoraPlan(), seed=2)
    with pytest.raises(UsageError, match="exists already"):
        save(written, adapters, LoraPlan())
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]
