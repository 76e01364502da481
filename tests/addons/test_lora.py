"""LoRA files: every spelling gives the same weights, by the plain formula; nothing is skipped silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdscratch.addons.apply import open_with_addons, with_loras
from sdscratch.addons.lora import open_lora
from sdscratch.addons.lora_names import part_of, places
from sdscratch.addons.lora_names import targets as modules_of
from sdscratch.addons.requests import LoraRequest, parse_lora, take_loras
from sdscratch.checkpoints.convert import convert, default_destination
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.places import data_folder, find_lora
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.models.config import SD1
from support.checkpoints import SMALLER, TINY, ldm_tensors, self_contained, write_ldm
from support.loras import SPELLINGS, Change, changes, is_attention, kohya_name, targets, write_lora

ALL = changes(targets())
ATTENTION = changes([weight for weight in targets() if is_attention(weight)])


@pytest.fixture
def model(tiny_model: Path) -> ModelFiles:
    return open_model(tiny_model)


def check_merged(model: ModelFiles, *applied: tuple[dict, float], tolerance: float = 1e-6) -> None:  # type: ignore[type-arg]
    """Every weight of `model` is the file's own and the sum of the plain formulas."""
    own = open_model(model.path)
    for weight in weights(model.config):
        expected = own.read(weight)
        touched = False
        for made, strength in applied:
            if weight in made and strength:
                expected = expected.double() + strength * made[weight].delta(weight).double()
                touched = True
        found = model.read(weight)
        if touched:
            torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=1e-5)
            assert found.dtype == torch.float32
            assert not torch.equal(found, own.read(weight))
        else:
            assert torch.equal(found, expected), weight.name


# --- Names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SD1, TINY, SMALLER], ids=["SD 1.x", "tiny", "smaller"])
def test_every_matrix_and_convolution_has_names_that_no_other_has(config) -> None:  # type: ignore[no-untyped-def]
    known = places(config)
    assert set(known.values()) == set(modules_of(config))
    assert {target.weight for target in known.values()} >= set(targets(config))
    for target in known.values():
        weight = target.weight
        names = [name for name, found in known.items() if found == target]
        assert len(names) >= (1 if weight.part == "text" else 2), weight.name
        assert {part_of(f"lora_{name}".removeprefix("lora_")) for name in names} == {weight.part}


def test_lcm_loras_278_modules_have_their_places() -> None:
    # what the published file holds: all of the U-Net's layers but the first and last and the time embedding
    ends = ("conv_in", "conv_out", "time_embedding")
    names = [
        kohya_name(w) for w in targets(SD1) if w.part == "unet" and not any(e in w.diffusers for e in ends)
    ]
    assert len(names) == 278
    assert "lora_unet_down_blocks_0_downsamplers_0_conv" in names
    assert "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj" in names
    assert all(name.removeprefix("lora_unet_") in places(SD1) for name in names)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_weights(tmp_path: Path, model: ModelFiles, spelling: str) -> None:
    made = ALL if SPELLINGS[spelling][1] else ATTENTION
    path = write_lora(tmp_path / "lora.safetensors", made, spelling)
    assert set(open_lora(path, TINY).modules) == set(made)
    check_merged(with_loras(model, [LoraRequest(str(path), 0.6)]), (made, 0.6))


def test_a_smaller_topology_has_its_places_too(tmp_path: Path) -> None:
    source = write_ldm(tmp_path / "model.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))
    made = changes(targets(SMALLER))
    path = write_lora(tmp_path / "lora.safetensors", made, "kohya, LDM's names")
    check_merged(open_with_addons(source, lora=str(path)), (made, 1.0))


def test_pickled_files_are_read_too(tmp_path: Path, model: ModelFiles) -> None:
    path = write_lora(tmp_path / "lora.safetensors", ATTENTION)
    torch.save(load_file(path), tmp_path / "lora.pt")
    check_merged(with_loras(model, [LoraRequest(str(tmp_path / "lora.pt"))]), (ATTENTION, 1.0))


# --- The formula -------------------------------------------------------------------------------------------

KINDS = [  # one of each kind of weight
    "text layers.0.attention.query", "text layers.1.expand", "unet down.1.1.block.cross_attention.key",
    "unet down.1.1.block.feed_forward.expand", "unet down.1.1.project_in", "unet down.1.0.conv1",
    "unet down.1.0.time", "unet down.4.0.skip", "unet down.3.0.conv", "unet up.2.1.conv", "unet down.0.0",
    "unet time1", "unet middle.0.1.block.self_attention.out",
]  # fmt: skip
BY_NAME = {f"{w.part} {w.name.removesuffix('.weight')}": w for w in targets()}


@settings(max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    rank=st.integers(1, 40),
    alpha=st.floats(0.125, 64, width=16),
    strength=st.floats(-4, 4, width=16),
    seed=st.integers(0, 99),
)
def test_the_change_is_weight_times_alpha_over_rank_times_up_times_down(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    kind: str,
    rank: int,
    alpha: float,
    strength: float,
    seed: int,
) -> None:
    made = changes([BY_NAME[kind]], rank=rank, alpha=alpha, seed=seed)
    path = write_lora(tmp_path_factory.mktemp("lora") / "lora.safetensors", made)
    lora, own = open_lora(path, TINY), open_model(tiny_model).read(BY_NAME[kind])
    (change,) = made.values()
    found = lora.add(BY_NAME[kind], own, strength)
    expected = own.double() + strength * change.delta(BY_NAME[kind]).double()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def rewritten(path: Path, change: Callable[[str, Tensor], dict[str, Tensor]]) -> Path:
    tensors = {}
    for name, tensor in load_file(path).items():
        tensors |= change(name, tensor)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda name, t: {} if name.endswith(".alpha") else {name: t}, id="missing"),
        pytest.param(lambda name, t: {name: t * 0 if name.endswith(".alpha") else t}, id="zero"),
    ],
)
def test_without_an_alpha_it_is_the_rank(
    tmp_path: Path, model: ModelFiles, change: Callable[[str, Tensor], dict[str, Tensor]]
) -> None:
    path = rewritten(write_lora(tmp_path / "lora.safetensors", ATTENTION), change)
    made = {weight: Change(c.up, c.down, c.up.shape[1]) for weight, c in ATTENTION.items()}
    check_merged(with_loras(model, [LoraRequest(str(path))]), (made, 1.0))


def test_an_alpha_of_none_in_a_pickle_is_the_rank(tmp_path: Path, model: ModelFiles) -> None:
    tensors = load_file(write_lora(tmp_path / "lora.safetensors", ATTENTION))
    torch.save({n: None if n.endswith(".alpha") else t for n, t in tensors.items()}, tmp_path / "lora.ckpt")
    made = {weight: Change(c.up, c.down, c.up.shape[1]) for weight, c in ATTENTION.items()}
    check_merged(with_loras(model, [LoraRequest(str(tmp_path / "lora.ckpt"))]), (made, 1.0))


@pytest.mark.parametrize("rslora", [False, True])
def test_what_diffusers_notes_of_pefts_settings_counts(
    tmp_path: Path, model: ModelFiles, rslora: bool
) -> None:
    pattern = {"attn1.to_q": 12.0}
    noted = {
        "unet.lora_alpha": 6, "unet.alpha_pattern": pattern, "text_encoder.lora_alpha": 1.5,
        "unet.use_rslora": rslora, "unet.r": 3,
    }  # fmt: skip
    plain = changes([weight for weight in targets() if is_attention(weight)], rank=3, alpha=3.0)
    path = write_lora(tmp_path / "lora.safetensors", plain, "PEFT", settings=noted)

    def alpha(weight) -> float:  # type: ignore[no-untyped-def]
        if weight.part == "text":
            return 1.5
        return (12.0 if "attn1.to_q" in weight.diffusers else 6.0) * (3**0.5 if rslora else 1.0)

    made = {weight: Change(c.up, c.down, alpha(weight)) for weight, c in plain.items()}
    check_merged(with_loras(model, [LoraRequest(str(path))]), (made, 1.0))


def test_one_by_one_convolutions_may_be_matrices(tmp_path: Path, model: ModelFiles) -> None:
    made = changes([w for w in targets() if w.shape[2:] == (1, 1)])
    path = write_lora(tmp_path / "lora.safetensors", made)
    rewritten(path, lambda name, t: {name: t.flatten(1) if t.dim() == 4 else t})
    check_merged(with_loras(model, [LoraRequest(str(path))]), (made, 1.0))


def test_several_add_up_in_any_order(tmp_path: Path, model: ModelFiles) -> None:
    first, second = ALL, changes(targets(), rank=5, seed=1)
    requests = [
        LoraRequest(str(write_lora(tmp_path / "a.safetensors", first)), 0.5),
        LoraRequest(str(write_lora(tmp_path / "b.safetensors", second, "PEFT")), -1.5),
    ]
    check_merged(with_loras(model, requests), (first, 0.5), (second, -1.5))
    check_merged(with_loras(model, requests[::-1]), (first, 0.5), (second, -1.5))
    check_merged(with_loras(with_loras(model, requests[:1]), requests[1:]), (first, 0.5), (second, -1.5))


def test_a_weight_of_zero_leaves_every_bit(tmp_path: Path, model: ModelFiles) -> None:
    path = write_lora(tmp_path / "lora.safetensors", ALL)
    idle = with_loras(model, [LoraRequest(str(path), 0.0)])
    check_merged(idle)
    for part in ("text", "unet"):
        mine, plain = (files.load(part, "cpu", torch.float32).state_dict() for files in (idle, model))  # type: ignore[arg-type]
        assert all(torch.equal(mine[name], plain[name]) for name in plain)


def test_a_network_is_loaded_with_its_changes_in_the_type_asked_for(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in ldm_tensors().items()}
    source = write_ldm(tmp_path / "model.safetensors", halves, self_contained())
    path = write_lora(tmp_path / "lora.safetensors", ALL, dtype=torch.bfloat16)
    model = open_with_addons(source, lora=[f"{path}:0.6"])
    for dtype in (torch.float32, torch.bfloat16):
        state = model.load("unet", "cpu", dtype).state_dict()
        for weight, change in ALL.items():
            if weight.part == "unet":
                small = Change(change.up.bfloat16().float(), change.down.bfloat16().float(), change.alpha)
                expected = halves[weight.ldm].float() + 0.6 * small.delta(weight)
                close = (
                    {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-6, "rtol": 8e-3}
                )
                torch.testing.assert_close(state[weight.name].float(), expected, **close)
                assert state[weight.name].dtype == dtype


# --- Refusals ----------------------------------------------------------------------------------------------

NAME = "lora_unet_mid_block_attentions_0_proj_in"
PAIR = {f"{NAME}.lora_down.weight": (4, 64), f"{NAME}.lora_up.weight": (64, 4)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{NAME}.hada_w1_a": (8, 4)}, r"lacks .* of lora_unet_mid\S+ \(LoHa: hada_w1_b, hada_w2_a"),
        ({f"{NAME}.lokr_w1": (4, 4)}, r"lacks the other half of lora_unet_mid\S+ \(LoKr: lokr_w2\)"),
        ({f"{NAME}.lokr_w1": (8, 8), f"{NAME}.lokr_w2_a": (8, 2)}, r"lacks .*\(LoKr: lokr_w2_b\)"),
        ({f"{NAME}.lokr_w1": (8, 8), f"{NAME}.lokr_w2": (8, 4)}, "LoKr of .* does not fit"),
        ({f"{NAME}.lokr_{role}": (8, 8) for role in ("w1", "w1_a", "w2")}, "lokr_w1_a beside what says"),
        ({f"{NAME}.on_input": (1,), f"{NAME}.weight": (4,)}, "IA.* does not fit"),
        ({**PAIR, f"{NAME}.dora_scale": (63, 1)}, "LoRA of .*dora_scale.* does not fit"),
        ({f"{NAME}.dora_scale": (64, 1)}, "lacks the other half"),
        ({f"{NAME}.oft_blocks": (5, 2, 2)}, "OFT of .* does not fit"),
        ({f"{NAME}.oft_blocks": (7, 16, 4, 4)}, "BOFT of .* does not fit"),
        ({f"{NAME}.diff": (64, 63)}, "does not fit"),
        ({**PAIR, f"{NAME}.diff": (64, 64)}, "twice, as LoRA and as full"),
        ({f"{NAME.replace('proj_in', 'transformer_blocks_0_attn1_to_q')}.diff_b": (64,)}, "has no bias"),
        ({f"{NAME}.diff_b": (63,)}, r"has a bias of \[64\]"),
        ({**PAIR, f"{NAME}.spline": (1,)}, "no place for .*spline.* no kind of LoRA"),
        ({"unet:0:up": (64, 4), "unet:0:down": (4, 64)}, "cloneofsimo"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)}, "is a LoRA for SDXL"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_down.weight": (4, 640)},
         "is a LoRA for SDXL"),
        ({"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 1024)},
         "is a LoRA for Stable Diffusion 2"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 64)}, "is a LoRA for Flux"),
        ({"emb_params": (2, 768)}, "is a textual inversion"),
        ({"something.weight": (2, 2)}, "is nothing that is known here"),
        ({f"{NAME}.lora_down.weight": (4, 64)}, "lacks the other half of lora_unet_mid"),
        ({f"{NAME}.lora_up.weight": (64, 4), f"{NAME}.alpha": ()}, "lacks the other half of lora_unet_mid"),
        ({**PAIR, f"{NAME}.lora_down.weight": (4, 65)}, "does not fit"),
        ({**PAIR, f"{NAME}.lora_up.weight": (65, 4)}, "does not fit"),
        ({**PAIR, f"{NAME}.lora_up.weight": (64, 3)}, "does not fit"),
        ({**PAIR, f"{NAME}.lora_down.weight": (4, 64, 3, 3)}, "does not fit"),
        ({f"{NAME}.lora_down.weight": (0, 64), f"{NAME}.lora_up.weight": (64, 0)}, "does not fit"),
        ({f"{NAME}.lora_down.weight": (), f"{NAME}.lora_up.weight": ()}, "does not fit"),
        ({**PAIR, f"{NAME}.alpha": (2,)}, "is no number"),
        ({**PAIR, f"{NAME}.lora_A.weight": (4, 64)}, rf"no place for {NAME}\.lora_"),
        ({**PAIR, "lora_unet_middle_block_1_proj_in.lora_down.weight": (4, 64)}, "twice"),
        ({**PAIR, f"{NAME}.lora_mid.weight": (4, 4)}, "LoRA of .*mid.* does not fit"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_in_one_sentence(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    path = tmp_path / "addon.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_lora(path, TINY)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_is_no_lora(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a Stable Diffusion 1\.x model"):
        open_lora(tiny_model, TINY)
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(CheckpointError, match="web page"):
        open_lora(tmp_path / "page.safetensors", TINY)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "addon.safetensors"
    shapes = {"down": (4, 64), "up": (64, 4)}
    save_file({f"{NAME}.lora_{r}.weight": torch.zeros(s, dtype=torch.int64) for r, s in shapes.items()}, path)
    with pytest.raises(CheckpointError, match="I64"):
        open_lora(path, TINY)


def test_a_lora_that_fits_not_at_all_or_in_part_is_an_error_with_names(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "lora.safetensors", changes(targets()[:6]))

    def stray(name: str, tensor: Tensor) -> dict[str, Tensor]:
        return {name.replace("layers_0", "layers_9"): tensor}

    def all_stray(name: str, tensor: Tensor) -> dict[str, Tensor]:
        return {name.replace("lora_te_text_model_encoder", "lora_unet_elsewhere"): tensor}

    assert len(open_lora(path, TINY).modules) == 6
    with pytest.raises(
        CheckpointError, match=r"does not fit this model: .* lora_te_.*layers_9.* and 3 more tensors"
    ):
        open_lora(rewritten(path, stray), TINY)
    mixed = write_lora(path, changes(targets()[:8]))
    with pytest.raises(
        CheckpointError, match=r"only 2 of the 8 modules .* fit .*layers_9.* and 3 more tensors"
    ):
        open_lora(rewritten(mixed, stray), TINY)
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*elsewhere"):
        open_lora(rewritten(write_lora(path, changes(targets()[:6])), all_stray), TINY)


def test_a_lora_for_wider_networks_is_refused(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "lora.safetensors", changes(targets(SMALLER)[:1]))
    with pytest.raises(CheckpointError, match=r"\[24, 3\] times F32 \[3, 24\], .*does not fit \[32, 32\]"):
        open_lora(path, TINY)


@pytest.mark.parametrize("end", [".lora_up.weight", ".lora_down.weight", ".alpha"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_by_name(
    tmp_path: Path, model: ModelFiles, end: str, value: float
) -> None:
    (weight,) = made = changes([BY_NAME["unet middle.0.1.project_in"]])
    path = write_lora(tmp_path / "lora.safetensors", made)
    rewritten(path, lambda name, t: {name: t.fill_(value) if name.endswith(end) else t})
    files = with_loras(model, [LoraRequest(str(path))])
    with pytest.raises(CheckpointError, match=f"NaN or infinity in {NAME}"):
        files.read(weight)


def test_broken_settings_are_refused(tmp_path: Path, model: ModelFiles) -> None:
    path = write_lora(tmp_path / "lora.safetensors", ATTENTION, "PEFT")
    for text in ("{", "[]", "[" * 100_000, "3"):
        save_file(load_file(path), path, {"lora_adapter_metadata": text})
        with pytest.raises(CheckpointError, match="lora_adapter_metadata"):
            with_loras(model, [LoraRequest(str(path))]).read(next(iter(ATTENTION)))


# --- Where a LoRA is looked for, and how it is asked for ---------------------------------------------------


def test_a_name_is_looked_up_here_then_in_loras_then_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    users, here = data_folder() / "loras", Path("loras")
    for folder in (users, here):
        folder.mkdir(parents=True)
    places_of = {"a": users / "a.safetensors", "b": users / "b.pt", "c": here / "c.safetensors"}
    for file in (*places_of.values(), Path("d.bin")):
        file.touch()
    for name, file in places_of.items():
        assert find_lora(name) == find_lora(f"{name}{file.suffix}") == file
    assert find_lora("d.bin") == Path("d.bin")
    (here / "a.safetensors").touch()
    assert find_lora("a") == here / "a.safetensors"
    for name in ("missing", "", "loras", "a\0b", "x" * 5000, "~nobody-at-all/x"):
        with pytest.raises(CheckpointError, match=r"no LoRA .*\./loras"):
            find_lora(name)


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1.0), ("a.safetensors:0.6", "a.safetensors", 0.6),
        (r"C:\a.safetensors", r"C:\a.safetensors", 1.0), (r"C:\a.safetensors:-2", r"C:\a.safetensors", -2),
        ("style:two.safetensors", "style:two.safetensors", 1.0), ("a:1e-1", "a", 0.1),
        ("a:", "a:", 1.0), ("a:nan", "a:nan", 1.0), ("a:+1.", "a", 1.0), ("a:0", "a", 0.0),
        ("a: 1", "a: 1", 1.0), ("a:١", "a:١", 1.0),
    ],
)  # fmt: skip
def test_the_last_colon_counts_only_before_a_number(text: str, name: str, weight: float) -> None:
    assert parse_lora(text) == LoraRequest(name, weight)


@pytest.mark.parametrize("text", ["", ":0.5", "a:1e999"])
def test_a_request_without_file_or_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="LoRA"):
        parse_lora(text)


@given(st.text(max_size=30), st.floats(-100, 100))
def test_a_request_is_read_as_it_is_written(name: str, weight: float) -> None:
    if name:
        assert parse_lora(f"{name}:{weight!r}") == LoraRequest(name, weight)


def test_tags_are_taken_out_of_the_prompt_as_the_web_uis_do() -> None:
    assert take_loras("a dog <lora:ink:0.8>, red<lora:b c>") == (
        "a dog , red",
        (LoraRequest("ink", 0.8), LoraRequest("b c")),
    )
    assert take_loras("a < b <lorax:1> (red:1.2) <hypernet:x:1>")[1] == ()
    for wrong in (
        "<lora:>",
        "<lora:a:b>",
        "<lora:a:1:2:3>",
        "<lora:a:x=1>",
        "<lora::1>",
        "<lora:a:>",
        "<lora:a:1e999>",
    ):
        with pytest.raises(UsageError):
            take_loras(f"a dog {wrong}")


# --- Baked in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_a_converted_model_holds_the_changes(tmp_path: Path, tiny_model: Path, layout) -> None:  # type: ignore[no-untyped-def]
    path = write_lora(tmp_path / "ink.safetensors", ALL)
    model = open_with_addons(tiny_model, lora=[f"{path}:0.6"])
    target = default_destination(model, layout, tmp_path, dtype=None, ema=False)
    assert target.name.removesuffix(".safetensors") == "tiny-ink"
    convert(model, target, layout)
    baked = open_model(target)
    for weight in weights(TINY):
        assert torch.equal(baked.read(weight), model.read(weight))
    check = json.loads(baked.metadata["sdscratch.provenance"]) if layout == "ldm" else None
    if check is not None:
        assert check["loras"] == [{"name": "ink", "weight": 0.6, "hash": model.changes[0].record()["hash"]}]


def test_a_baked_model_keeps_its_types_and_refuses_what_they_cannot_hold(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in ldm_tensors().items()}
    source = write_ldm(tmp_path / "model.safetensors", halves, self_contained())
    path = write_lora(tmp_path / "ink.safetensors", ATTENTION)
    done = convert(open_with_addons(source, lora=str(path)), tmp_path / "baked.safetensors", "ldm")
    assert {tensor.dtype for tensor in load_file(done.path).values()} == {torch.float16}
    with pytest.raises(CheckpointError, match="too large for float16"):
        convert(open_with_addons(source, lora=f"{path}:1e6"), tmp_path / "large.safetensors", "ldm")
    assert not (tmp_path / "large.safetensors").exists()
