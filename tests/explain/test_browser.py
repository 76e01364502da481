"""The built-in model's pages in a browser: what moves, what is shown, what is asked for."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.absent import absent
from support.cli import sdscratch
from support.explained import ExplainedPage, levels_of

pytestmark = pytest.mark.full

CPU = ("--device", "cpu", "--dtype", "float32", "--seed", 0)
LEAST_CONTRAST = 4.5  # of text to what is behind it (WCAG 2.2, 1.4.3)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# The contrast of every piece of text to the nearest colour behind it, the lowest ones first.
CONTRASTS = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (color.startsWith("rgb") && (numbers(color)[3] ?? 1) > 0.9) return numbers(color);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(e);
    if (!own || !e.getClientRects().length || style.visibility === "hidden" || e.closest("#tip")) continue;
    const color = style[e instanceof SVGElement ? "fill" : "color"];
    const [a, b] = [light(numbers(color)), light(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.className.baseVal ?? e.className, e.textContent.slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5);
}"""


@dataclass(frozen=True)
class Made:
    """What a command left in a folder."""

    folder: Path
    seconds: float

    @property
    def url(self) -> str:
        """Where the page is."""
        return (self.folder / "page.html").as_uri()

    @property
    def page(self) -> ExplainedPage:
        """The page, taken apart."""
        return ExplainedPage.read(self.folder / "page.html")

    def arrays(self, name: str = "run") -> Any:
        """The tensors of a run."""
        return np.load(self.folder / "tensors" / f"{name}.npz")


def made(folder: Path, *arguments: object) -> Made:
    """Explain."""
    begun = time.process_time()
    result = sdscratch("explain", *arguments, *CPU, "-o", folder / "page.html", "--save", folder / "tensors")
    assert result.code == 0, result.stderr
    return Made(folder, time.process_time() - begun)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page of one prompt, as it comes."""
    return made(tmp_path_factory.mktemp("plain"), "a dog wearing sunglasses")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page of two."""
    prompts = "a (dog:1.2) wearing sunglasses", "--compare", "a dog wearing a crown"
    return made(tmp_path_factory.mktemp("compared"), *prompts, "--steps", 5)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        absent("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in a browser, with what it said and asked for."""

    def __init__(self, browser: Any, url: str, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def texts(self, name: str, run: int = 0) -> set[str]:
        """What stands where a text follows the step."""
        found = self.page.locator(f'[data-run="{run}"][data-text="{name}"]').all_text_contents()
        return set(found)

    def levels(self, name: str, run: int = 0) -> np.ndarray:
        """The grey levels of a picture that follows the step, as it is shown now."""
        source = self.page.locator(f'[data-run="{run}"][data-image="{name}"]').first.get_attribute("src")
        return levels_of(str(source).partition(",")[2])


@pytest.fixture
def opened(chromium: Any, plain: Made) -> Iterator[Opened]:
    """The plain page, open."""
    it = Opened(chromium, plain.url)
    yield it
    it.page.close()
    assert it.said == []
    assert [url for url in it.asked if not url.startswith("data:")] == [plain.url]


def shown_numbers(opened: Opened, run: int = 0) -> dict[str, float]:
    """The numbers of the step that is shown."""
    found = {}
    for name in ("sigma", "timestep", "rms-x", "rms-noise", "rms-x0"):
        (text,) = opened.texts(name, run)
        found[name] = float(text.replace("−", "-"))
    return found


def known_numbers(arrays: Any, step: int) -> dict[str, float]:
    """The same from the tensors."""

    def rms(name: str) -> float:
        return float(np.sqrt((arrays[name][step].astype(float) ** 2).mean()))

    return {
        "sigma": float(arrays["sigmas"][step]),
        "timestep": float(arrays["timesteps"][step]),
        "rms-x": rms("x"),
        "rms-noise": rms("noise"),
        "rms-x0": rms("denoised"),
    }


# The slider and the keys


def test_the_slider_moves_and_all_on_the_page_follows(opened: Opened, plain: Made) -> None:
    arrays = plain.arrays()
    slider = opened.page.locator("#step")
    for step in (0, 7, 19):
        slider.fill(str(step + 1))
        assert opened.texts("number") == {str(step + 1)}
        assert shown_numbers(opened) == pytest.approx(known_numbers(arrays, step), rel=1e-3, abs=2e-3)
        sigma = arrays["sigmas"][step]
        same_levels(opened.levels("x"), arrays["x"][step] / np.sqrt(1 + sigma**2), 3.0)
        same_levels(opened.levels("noise"), arrays["noise"][step], 3.0)
        rows = float(opened.page.locator("[data-rows]").evaluate("e => parseFloat(e.style.top)"))
        assert rows == pytest.approx(100 * (1 - arrays["timesteps"][step] / 999), abs=0.01)
    assert slider.get_attribute("aria-valuetext") == "step 20 of 20"


def same_levels(sheet: np.ndarray, channels: np.ndarray, most: float) -> None:
    """Whether the tiles of a sheet are these channels, to half a grey level."""
    _, h, w = channels.shape
    columns = (sheet.shape[1] + 1) // (w + 1)
    for index, channel in enumerate(channels):
        top, left = (index // columns) * (h + 1), (index % columns) * (w + 1)
        tile = sheet[top : top + h, left : left + w].astype(float)
        assert np.abs((tile - 128) * most / 127 - np.clip(channel, -most, most)).max() <= most / 254 + 1e-5


def test_arrow_keys_go_through_the_steps(opened: Opened) -> None:
    page = opened.page
    page.locator("#step").fill("3")
    page.evaluate("document.activeElement.blur()")
    before = opened.levels("x")
    page.keyboard.press("ArrowRight")
    assert opened.texts("number") == {"4"}
    assert (opened.levels("x") != before).any()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert opened.texts("number") == {"2"}
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert opened.texts("number") == {"1"}  # and no further
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")
    assert opened.texts("number") == {"2"}
    page.locator(".film button").last.click()
    assert opened.texts("number") == {"20"}


def test_play_runs_to_the_end_and_stops(opened: Opened) -> None:
    opened.page.locator("#step").fill("18")
    play = opened.page.locator("#play")
    play.click()
    for _ in range(100):  # the page's own rules forbid to wait in it: nothing may be evaluated there
        opened.page.wait_for_timeout(100)
        if play.get_attribute("aria-pressed") == "false":
            break
    assert play.get_attribute("aria-pressed") == "false"
    assert opened.texts("number") == {"20"}


def test_words_resolutions_and_steps_of_attention_can_be_chosen(opened: Opened, plain: Made) -> None:
    page, arrays = opened.page, plain.arrays()
    words = json.loads((plain.folder / "tensors" / "run.json").read_text())["words"]
    index = words.index("sunglasses")
    page.locator(f'[data-word="{index}"]').click()
    page.locator('[data-size="4×4"]').click()
    page.locator('[data-mode="steps"]').click()
    page.locator("#step").fill("5")
    maps, mean = arrays["attention_4x4"], arrays["attention_4x4_mean"]
    peak = max(maps[:, index].max(), mean[index].max())
    source = page.locator("[data-large]").get_attribute("src").partition(",")[2]
    assert np.abs(levels_of(source) * peak / 255 - maps[4, index]).max() <= peak / 510 + 1e-6
    assert page.locator("[data-name]").text_content() == "sunglasses"
    page.locator("[data-layer]").select_option(index=0)
    page.locator("[data-head]").select_option(index=2)
    source = page.locator("[data-heads]").get_attribute("src").partition(",")[2]
    assert (levels_of(source) == levels_of(plain.page.data[0]["heads"][0][2])).all()


def test_the_glossary_is_a_hover_and_a_tab_away(opened: Opened) -> None:
    term = opened.page.locator(".term").first
    tip = opened.page.locator("#tip")
    term.hover()
    assert tip.is_visible()
    assert tip.text_content() == term.get_attribute("data-meaning")
    opened.page.keyboard.press("Escape")
    assert not tip.is_visible()
    term.focus()
    assert tip.is_visible()


def test_everything_that_can_be_used_is_reached_by_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip-link"
    unreached = page.evaluate(
        """() => [...document.querySelectorAll("[data-go], [data-word], [data-size], [data-mode], select, "
        + "summary, a[href], input, button")].filter((e) => e.tabIndex < 0).length"""
    )
    assert unreached == 0
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, a[href]")].filter((e) =>
        !e.textContent.trim() && !e.ariaLabel && !(e.labels || []).length
        && !e.querySelector("img[alt]:not([alt=''])")).length"""
    )
    assert nameless == 0


# How it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("which", ["plain", "compared"])
def test_nothing_is_wider_than_the_window_and_text_can_be_read(
    which: str, width: int, scheme: str, chromium: Any, request: pytest.FixtureRequest
) -> None:
    it = Opened(chromium, request.getfixturevalue(which).url, width, scheme)
    assert it.page.evaluate("document.documentElement.scrollWidth") <= width
    for contrast, *where in it.page.evaluate(CONTRASTS):
        assert contrast >= LEAST_CONTRAST, where
    paper = it.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 384) == (scheme == "light")
    assert it.said == []
    it.page.close()


def test_it_prints(chromium: Any, plain: Made) -> None:
    it = Opened(chromium, plain.url)
    printed = it.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    it.page.emulate_media(media="print")
    assert not it.page.locator(".dock").is_visible()
    it.page.close()


def test_two_runs_follow_one_slider(chromium: Any, compared: Made) -> None:
    it = Opened(chromium, compared.url)
    for step in (0, 4):
        it.page.locator("#step").fill(str(step + 1))
        for run, name in enumerate(("run", "run-b")):
            known = known_numbers(compared.arrays(name), step)
            assert shown_numbers(it, run) == pytest.approx(known, rel=1e-3, abs=2e-3)
        one, other = (compared.arrays(name)["denoised"][step] for name in ("run", "run-b"))
        (text,) = it.texts("apart")
        assert float(text) == pytest.approx(np.sqrt(((one - other) ** 2).mean()), rel=6e-3)
    assert it.said == []
    assert [url for url in it.asked if not url.startswith("data:")] == [compared.url]
    it.page.close()


# What it is


def test_the_picture_is_the_file_that_txt2img_writes(plain: Made) -> None:
    drawn = sdscratch("txt2img", "a dog wearing sunglasses", *CPU, "-o", "-")
    assert drawn.code == 0, drawn.stderr
    page = plain.page
    (picture,) = page.pictures()
    assert (np.asarray(picture) == np.asarray(Image.open(io.BytesIO(drawn.stdout)))).all()
    assert base64.b64encode(drawn.stdout) in page.html


def test_the_page_is_small_and_soon_there(plain: Made) -> None:
    assert len(plain.page.html) < 6e6
    assert plain.seconds < 15  # of processor time, without the start
