"""What `evaluate` found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["show"]

PREDICTIONS = {"epsilon": "the noise (epsilon)", "v": "the velocity (v)"}
ROWS = {
    "known": "the 300 best known",
    "vocabulary": "the whole vocabulary",
    "background": "backgrounds",
    "compositions": "held-out compositions",
}
LOOKS = {
    "flat": "pixels in flat neighbourhoods",
    "flat_inside": "the same inside things",
    "gradient": "99th percentile of the gradient, levels",
}


def show(facts: Mapping[str, Any]) -> None:
    """Print the facts as tables."""
    from rich.console import Console

    console = Console(highlight=False)
    size = f"{facts['width']}×{facts['height']}"
    skipped = f", {len(facts['skipped'])} skipped" if facts["skipped"] else ""
    console.print(f"{facts['model']} on {facts['data']}: {facts['pictures']} pictures of {size}{skipped}")
    console.print(
        f"autoencoder: PSNR {facts['autoencoder']['psnr']:.2f} dB, SSIM {facts['autoencoder']['ssim']:.4f}"
    )
    console.print(losses_table(facts["denoising"]))
    if "agreement" in facts:
        console.print(agreement_table(facts["agreement"]))
        console.print(looks_table(facts["looks"]))


def losses_table(denoising: Mapping[str, Any]) -> Table:
    """The loss, by timestep and over all."""
    table = plain_table("timesteps", "weight", f"loss of {PREDICTIONS[denoising['prediction']]}")
    for part in denoising["by_timestep"]:
        table.add_row(f"{part['first']}–{part['last']}", f"{part['weight']:.2f}", f"{part['loss']:.4f}")
    table.add_section()
    table.add_row("all", "1.00", f"{denoising['loss']:.4f}")
    return table


def agreement_table(rows: Mapping[str, Any]) -> Table:
    """How often pictures show what was asked for."""
    table = plain_table("prompts of", "number", "thing", "in top 5", "attribute", "both")
    for row, values in rows.items():
        table.add_row(ROWS[row], *shares(values))
        for kind, each in values.get("kinds", {}).items():
            table.add_row(f"  {kind}", *shares(each))
    return table


def looks_table(looks: Mapping[str, Any]) -> Table:
    """How crisp pictures are beside renders, and how far from them."""
    table = plain_table(f"{looks['pictures']} pictures", "drawn", "renders")
    for name, words in LOOKS.items():
        values = (looks[kind][name] for kind in ("drawn", "renders"))
        table.add_row(words, *(figure(value, percent=name != "gradient") for value in values))
    table.add_section()
    table.add_row("Fréchet distance of the judge's features", figure(looks["frechet_distance"]), "")
    return table


def figure(value: float | None, *, percent: bool = False) -> str:
    """A cell; what could not be measured is a dash."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.1f}"


def shares(values: Mapping[str, Any]) -> list[str]:
    """One row's cells."""
    percents = (values[name] for name in ("top1", "top5", "attribute", "both"))
    return [str(values["prompts"]), *(f"{100 * value:.1f} %" for value in percents)]


def plain_table(first: str, *others: str) -> Table:
    """A table without frames, numbers to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
