"""Templates are expanded as the package dynamicprompts does it, seed by seed; lists stay in their folder."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from dynamicprompts.generators import CombinatorialPromptGenerator, RandomPromptGenerator
from dynamicprompts.wildcards import WildcardManager

from sdscratch.errors import UsageError
from sdscratch.text.wildcards import Lists, combinations, expand, folders, is_template

# the reference calls its parser by names that the parser now has others for
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")

FILES = {
    "colour.txt": "red\n# no\n blue \n\n{light|dark} green\n",
    "of/animal.txt": "cat\ndog\n__colour__ bird\n",
    "of/more/animal.txt": "newt\ncat\n",
    "season.txt": "in ${season:autumn}\nat ${season:dusk} noon\n",
    "metals.json": '{"metal": ["3::iron", "lead", {"text": "gold", "weight": 2}],"deep": {"er": ["x", "y"]}}',
    "things.yaml": "thing:\n  small: [pin, 2::nail]\n  big:\n    - house\n",
}
LISTED = (
    *(
        "__colour__",
        "__of/animal__",
        "__of/*__",
        "__*__",
        "__animal__",
        "__metal__",
        "__deep/er__",
        "__**/er__",
    ),
    *("__season(season=summer)__", "__season(season={x|y})__", "__thing/*__", "__{colour|deep/er}__"),
    *("{2$$__colour__}", "{1-2$$__animal__}", "__of/${kind:animal}__", "__of/more/anima?__"),
)
TEXTS = ("a", "b ", " c", " ", "dog, cat", "(x:1.2)", "[a]", "é", "1.5", "x\ny", "<lora:x:0.5>")
BOUNDS = ("", "", "2$$", "1-2$$", "-2$$", "2-$$", "1$$ and $$", "0-1$$", "2$$|$$", "3$$, $$")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wildcards")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def lists(folder: Path) -> Lists:
    return Lists((folder,))


@pytest.fixture(scope="module")
def reference(folder: Path) -> WildcardManager:
    logging.getLogger("dynamicprompts").setLevel(logging.ERROR)
    return WildcardManager(folder)


def random_template(chance: Random, depth: int = 0) -> str:
    """Any constructs in one another."""

    def part() -> str:
        kind = chance.random()
        if depth > 2 or kind < 0.45:
            return chance.choice(TEXTS)
        if kind < 0.75:
            options = [random_template(chance, depth + 1) for _ in range(chance.randint(1, 4))]
            bounds = chance.choice(BOUNDS)
            if not bounds and chance.random() < 0.3:
                options = [chance.choice(["0.5::", "2::", "1::", ".5::"]) + option for option in options]
            return f"{{{chance.choice(['', '', '~'])}{bounds}{'|'.join(options)}}}"
        if kind < 0.9:
            return chance.choice(LISTED)
        wrap = f"%{{(...:1.1)$${random_template(chance, depth + 1)}}}"
        return chance.choice(["${v:default}", "${v}", "${other:{p|q}}", wrap])

    texts = "".join(part() for _ in range(chance.randint(1, 3)))
    return texts if depth else chance.choice(["${v={m|n}}", "${v=!{m|n}}", "${v=z}"]) + texts


@pytest.mark.parametrize("seed", range(40))
def test_a_template_and_a_seed_give_what_the_reference_gives(
    lists: Lists, reference: WildcardManager, seed: int
) -> None:
    chance = Random(seed)
    template = random_template(chance)
    while len(template) > 400:  # the reference takes seconds for a long one
        template = random_template(chance)
    for number in (0, 1, 2**40):
        told = RandomPromptGenerator(reference, seed=number).generate(template, 1)
        assert [expand(template, number, lists)] == told


@pytest.mark.parametrize(
    "template",
    [
        *("a {b|c} {d|e}", "{2$$a|b|c}", "{1-2$$ and $$a|b}", "{0-2$$a|b}", "{-2$$a|b|c}", "{2$$a|a|b}"),
        *("{a|{b|c}} __colour__", "__of/*__ {x|y}", "${v={a|b}} ${v} ${v}", "${v=!{a|b}} ${v} ${v}"),
        *(
            "__metal__",
            "{2$$__colour__}",
            "%{(...:1.1)$${a|b}}",
            "{ a | b }",
            "{a}",
            "__season(season=dusk)__",
        ),
        *("{a|b} # none of it", "{a|b}/* nor\n this */ c", "{0.5::a|2::b}"),
    ],
)
def test_combinations_are_the_references_in_its_order(
    lists: Lists, reference: WildcardManager, template: str
) -> None:
    told = CombinatorialPromptGenerator(reference).generate(template, 200)
    assert told
    assert list(islice(combinations(template, 0, lists), 200)) == told


def test_weights_are_chances(lists: Lists) -> None:
    drawn = Counter(expand("{1::a|3::b}", seed, lists) for seed in range(4000))
    assert drawn["b"] / 4000 == pytest.approx(0.75, abs=0.03)
    drawn = Counter(expand("__metal__", seed, lists) for seed in range(3000))
    assert {name: drawn[name] / 3000 for name in drawn} == pytest.approx(
        {"iron": 3 / 6, "gold": 2 / 6, "lead": 1 / 6}, abs=0.04
    )
    taken = Counter(expand("{2$$1::a|1::b|8::c}", seed, lists)[0] for seed in range(3000))
    assert taken["c"] / 3000 == pytest.approx(0.8, abs=0.03)


def test_a_turn_takes_one_option_after_the_other(lists: Lists) -> None:
    assert [expand("{@a|b|c}!", 0, lists, turn) for turn in range(4)] == ["a!", "b!", "c!", "a!"]
    assert [expand("__@deep/er__", 0, lists, turn) for turn in range(3)] == ["x", "y", "x"]


@pytest.mark.parametrize(
    "text", ["a dog", "100% $5 a_b __init", "a # b // c", "[a|b] (c:1.2)", "a | b", "__", ""]
)
def test_a_prompt_that_asks_for_nothing_is_no_template(text: str) -> None:
    assert not is_template(text)


@pytest.mark.parametrize(
    ("template", "text"),
    [("{a} 100% $5 __", "a 100% $5 __"), ("{a} | b }", "a | b }"), ("${v=x}", ""), ("{a}$$b", "a$$b")],
)
def test_what_can_mean_one_thing_only_is_text(lists: Lists, template: str, text: str) -> None:
    assert expand(template, 0, lists) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a {b|c", r"a { at character 3 that no } closes"),
        ("${v=", r"\$\{ at character 1 that no }"),
        ("${}", "no variable's name"),
        ("%{a}", r"without \$\$"),
        ("${v}", "variable .* has no value"),
        ("${v=${v}}{x}${v}", "names itself"),
        ("{0::a|0::b}", "weights are not above 0"),
        ("__absent__", "no list for the wildcard __absent__"),
        ("{" * 100 + "}" * 100, "brackets in one another"),
    ],
)
def test_what_makes_no_sense_is_refused(lists: Lists, template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(template, 0, lists)


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..",
        "of/../../secret",
        "/etc/passwd",
        "..\\secret",
        "of/..%2fsecret",
        "link",
        "away/secret",
    ],
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "inside"
    (inside / "of").mkdir(parents=True)
    (inside / "own.txt").write_text("fine")
    for name in ("secret.txt", "outside/secret.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("secret")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "away").symlink_to(tmp_path / "outside")
    (inside / "round").symlink_to(inside)
    lists = Lists((inside,))
    with pytest.raises(UsageError, match="wildcard"):
        expand(f"__{path}__", 0, lists)
    assert expand("__**__", 0, lists) == expand("__own__", 0, lists) == "fine"


def test_lists_that_name_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("__b__")
    (tmp_path / "b.txt").write_text("__a__")
    with pytest.raises(UsageError, match="without end"):
        expand("__a__", 0, Lists((tmp_path,)))
    (tmp_path / "a.txt").write_text("__b____b____b____b____b____b____b____b____b____b__")
    (tmp_path / "b.txt").write_text("x" * 20_000)
    with pytest.raises(UsageError, match="grows beyond"):
        expand("__a__", 0, Lists((tmp_path,)))


@pytest.mark.parametrize("text", ["a: [", "- " * 5000, "a: &a [*a]", "\x00", "&a [1]: 2", "a: {b: 1}"])
def test_a_damaged_file_is_told_of_and_hurts_no_other(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbffine\r\n")
    assert expand("__own__", 0, Lists((tmp_path,))) == "fine"


def test_a_file_that_stands_for_more_than_memory_holds_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MOST", 10_000)
    lines = ["a0: &a0 {x: [lol]}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(10))}}}" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match="no list"):
        expand("__own__", 0, Lists((tmp_path,)))
    assert "more than 10,000 entries" in caplog.text


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match=r"byte 4 in .* is not UTF-8"):
        expand("__own__", 0, Lists((tmp_path,)))


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_lists_may_begin_with_a_mark_and_have_windows_line_ends(tmp_path: Path, coding: str) -> None:
    texts = {"a.txt": "# no\r\nred\r\n", "b.json": '{"b": ["blue"]}\r\n', "c.yaml": "c:\r\n  - green\r\n"}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode(coding))
    assert expand("__a__ __b__ __c__", 1, Lists((tmp_path,))) == "red blue green"
