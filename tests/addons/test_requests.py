"""How a LoRA is asked for: weights apart, blocks, step ranges; and each mistake in one sentence."""

from __future__ import annotations

import pytest

from sdscratch.addons.blocks import BLOCKS, PRESETS, block_of, parse_blocks
from sdscratch.addons.requests import LoraRequest, parse_lora, take_loras
from sdscratch.checkpoints.layouts import weights
from sdscratch.errors import UsageError
from sdscratch.models.config import SD1


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("0.8:0.5", {"weight": 0.8, "unet_weight": 0.5}),
        ("te=0.8:unet=0.5", {"weight": 0.8, "unet_weight": 0.5}),
        ("unet=0:te=1", {"unet_weight": 0.0}),
        ("unet=0.5", {"unet_weight": 0.5}),
        ("0.8:unet=0.5", {"weight": 0.8, "unet_weight": 0.5}),
        ("0.5:lbw=ALL", {"weight": 0.5, "blocks": parse_blocks("ALL", "")}),
        ("start=3", {"start": 3}),
        ("1:stop=7", {"stop": 7}),
        ("1:step=3-7", {"start": 3, "stop": 7}),
        ("step=3-", {"start": 3}),
        ("step=-7", {"stop": 7}),
    ],
)  # fmt: skip
def test_an_option_and_a_tag_say_the_same(items: str, expected: dict[str, object]) -> None:
    wanted = {"weight": 1.0} | expected
    assert parse_lora(f"ink:{items}") == LoraRequest("ink", **wanted)  # type: ignore[arg-type]
    assert take_loras(f"a dog <lora:ink:{items}>") == ("a dog ", (LoraRequest("ink", **wanted),))  # type: ignore[arg-type]
    assert take_loras(f"a dog<LyCo:ink:{items}>")[1] == (LoraRequest("ink", **wanted),)  # type: ignore[arg-type]


def test_block_weights_may_stand_in_a_tag_without_their_name() -> None:
    wanted = (LoraRequest("ink", 0.8, blocks=parse_blocks("OUTD", "")),)
    assert take_loras("<lora:ink:0.8:OUTD>")[1] == wanted
    assert take_loras(f"<lora:ink:0.8:{','.join(map(str, PRESETS['OUTD']))}>")[1] == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ink:te=x", "weight 'x', which is no number"),
        ("ink:te=1e999", "too large"),
        ("ink:1:2:3", "DyLoRA"),
        ("ink:1:dyn=4", "DyLoRA"),
        ("ink:1:te=2", "says twice"),
        ("ink:lbw=1,2,3", "3 block weights; there are 26"),
        ("ink:lbw=R", r"12, 17 or 26 numbers .* NONE, ALL, INS"),
        ("ink:lbw=" + ",".join(["1"] * 16 + ["R"]), "random ones"),
        ("ink:lbw=" + ",".join(["1"] * 16 + ["inf"]), "finite"),
        ("ink:lbwe=x", "elements of blocks"),
        ("ink:start=-1", "a step is a whole number"),
        ("ink:step=5", "say step=FIRST-END"),
        ("ink:start=5:stop=5", "before it starts"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence(text: str, message: str) -> None:
    for parse in (parse_lora, lambda text: take_loras(f"a <lora:{text}>")):
        with pytest.raises(UsageError, match=message) as caught:
            parse(text)
        assert "\n" not in str(caught.value)


def test_a_range_holds_its_first_step_and_not_its_last() -> None:
    request = parse_lora("ink:1:step=2-4")
    assert [request.active_at(step) for step in range(6)] == [False, False, True, True, False, False]
    assert not request.always
    assert parse_lora("ink:0.5").always


def test_shorter_lists_name_their_blocks_and_the_others_get_nothing() -> None:
    numbers = ",".join(map(str, range(1, 18)))
    given = dict(zip(BLOCKS, parse_blocks(numbers, ""), strict=True))
    expected = {
        "BASE": 1,
        "IN01": 2,
        "IN02": 3,
        "IN04": 4,
        "IN08": 7,
        "MID": 8,
        "OUT03": 9,
        "OUT11": 17,
        "IN00": 0,
    }
    assert {name: given[name] for name in expected} == expected
    of_sdxl = dict(zip(BLOCKS, parse_blocks(",".join(map(str, range(1, 13))), ""), strict=True))
    expected = {"BASE": 1, "IN04": 2, "IN08": 5, "MID": 6, "OUT00": 7, "OUT05": 12, "OUT06": 0, "IN01": 0}
    assert {name: of_sdxl[name] for name in expected} == expected
    whole = [float(number) for number in range(26)]
    assert list(parse_blocks(",".join(map(str, whole)), "")) == whole
    assert {len(numbers) for numbers in PRESETS.values()} == {17}


def test_every_weight_of_the_unet_has_its_block() -> None:
    found = {weight.ldm: block_of(weight.ldm) for weight in weights(SD1)}
    unet = "model.diffusion_model."
    assert found[f"{unet}input_blocks.0.0.weight"] == BLOCKS.index("IN00")
    assert found[f"{unet}input_blocks.11.0.in_layers.0.weight"] == BLOCKS.index("IN11")
    assert found[f"{unet}middle_block.1.proj_in.weight"] == BLOCKS.index("MID")
    assert found[f"{unet}output_blocks.8.2.conv.weight"] == BLOCKS.index("OUT08")
    assert found[f"{unet}time_embed.0.weight"] is found[f"{unet}out.2.weight"] is None
    assert {found[w.ldm] for w in weights(SD1) if w.part == "text"} == {0}
    blocks = {found[w.ldm] for w in weights(SD1) if w.part == "unet"} - {None}
    assert blocks == set(range(1, 26))
