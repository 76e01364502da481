"""Runs the rows of the table: `python -m faults [ROW…] [--count N] [--seed N] [--write]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

import sdscratch
from faults import table
from faults.hunt import hunt

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
KEPT = Path(__file__).with_name("figures.json")
IN_MEMORY = Path("/dev/shm")
HONEST = 2 << 30  # bytes: a sound picture may have 89 megapixels, which take 1.5 GB while they are converted


def import_all(below: str = "sdscratch.") -> None:
    """Every module of a package, so that a reader that imports one late does nothing new."""
    for module in pkgutil.walk_packages(sdscratch.__path__, "sdscratch."):
        if module.name.startswith(below) and not module.name.endswith("__main__"):
            with suppress(ImportError):  # what is compared with need not be there
                importlib.import_module(module.name)


def main() -> int:
    """Run them; 1 where there were faults."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("rows", nargs="*", default=list(table.ROWS), help=f"of {', '.join(table.ROWS)}")
    parser.add_argument("--count", type=int, help="cases of each row, instead of a full run's")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; another one, other cases")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    import_all()
    faults = 0
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        for name in asked.rows:
            place = Path(folder) / name
            place.mkdir()
            families = importlib.import_module(f"faults.{name}").families(place)
            count = asked.count or table.ROWS[name][1]
            most = {"most": HONEST} if name == "pictures" else {}
            tally = hunt(families, count, place, seed=asked.seed, told=lambda line: print(line), **most)
            print(f"{name}: {table.row_of(tally, asked.seed)}", flush=True)
            for found in tally.faults.values():
                kept = Path(tempfile.gettempdir()) / Path(found.file).name
                kept.write_bytes(Path(found.file).read_bytes())
                print(f"  {found.count} x {found.family}: {found.what} ({found.where}); the file is {kept}")
            faults += len(tally.faults)
            if asked.write:
                table.write(PAGE, KEPT, {name: table.row_of(tally, asked.seed)})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
