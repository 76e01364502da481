"""The table of what was tried, in JSON and in the docs; rows measured at different times stand together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.hunt import Tally

__all__ = ["ROWS", "row_of", "write"]

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
ROWS = {  # by module: what it is, and the count of a full run
    "headers": ("headers of tensor files, mutated (safetensors, zip, pickle, GGUF)", 1_000_000),
    "whole": ("whole small files, mutated (models, add-ons, journals, records, plans, …)", 20_000),
    "pictures": ("pictures, mutated (PNG, JPEG, WebP and what is written in them)", 50_000),
}


def row_of(tally: Tally, seed: int) -> dict[str, Any]:
    """What a row of the table says."""
    return {
        "cases": tally.cases,
        "seed": seed,
        "read": tally.read,
        "refused": tally.refused,
        "sentences": tally.sentences,
        "slowest": round(tally.slowest, 2),
        "memory": tally.memory,
        "seconds": round(tally.seconds),
        "faults": sum(found.count for found in tally.faults.values()),
    }


def write(page: Path, kept: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Put rows into the file that keeps them, and the table of all of them into a page, between its marks."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    known |= rows
    kept.write_text(json.dumps(known, indent=1) + "\n")
    lines = [
        "| what was tried | cases | of a full run | read, refused | slowest | memory | faults |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (title, full) in ROWS.items():
        if name in known:
            row = known[name]
            lines.append(
                f"| {title} | {row['cases']:,} | {full:,} | {row['read']:,}, {row['refused']:,} "
                f"| {row['slowest']} s | {row['memory'] >> 20} MiB | {row['faults']} |"
            )
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))
