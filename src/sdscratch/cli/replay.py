"""`replay`: pictures drawn again from what they say of themselves, whichever tool made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import DEVICES
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.cli.telling import print_line
from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.errors import ImageError, SdscratchError, UsageError
from sdscratch.files import atomic_write, make_folder, refuse_existing
from sdscratch.options import DTYPES, check_placement
from sdscratch.show import printable

if TYPE_CHECKING:
    from sdscratch.jobs.finding import Library
    from sdscratch.jobs.redraw import Drawn, Redrawer
    from sdscratch.jobs.replay import Replay

__all__ = ["LookIn", "Pictures", "hashing", "pictures_of", "redrawn", "replay"]

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
MEGABYTE = 1 << 20

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="Pictures, or folders of them: PNG, JPEG or WebP.", show_default=False
    ),
]
LookIn = Annotated[
    list[Path] | None,
    typer.Option(
        "--look-in",
        metavar="FOLDER",
        help="Folder to look for models, add-ons and pictures in, and below it; repeatable.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help=DEVICES, show_default="as the record says")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help=f"Precision of the arithmetic: auto, {', '.join(DTYPES)}.",
        show_default="as the record says",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each picture.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more, and show tracebacks.")]


def replay(
    images: Pictures,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to put the pictures in.")
    ] = "replays/",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Option to be otherwise, like steps=30 or model=FILE; repeatable.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="NAME",
            help=f"Tool to draw like: {', '.join(CONVENTIONS)}.",
            show_default="the one that made it",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="File of lines for `run` to write (.jsonl), instead of drawing.",
            show_default=False,
        ),
    ] = None,
    look_in: LookIn = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw pictures again from what they say of themselves, whichever tool made them.

    Models and add-ons are looked for in ./weights, ./loras, ./embeddings, the
    user's folders and --look-in, by any of their hashes, then by name. Said is
    how near each comes, what differs, and what could not be matched.

    Examples:

      sdscratch replay owls/0001-1.png

      sdscratch replay downloads/*.png --look-in models/ --json

      sdscratch replay fox.png --set steps=30 --set seed=8 -o again/

      sdscratch replay gallery/ --plan gallery.jsonl
    """
    from sdscratch.jobs.replay import parse_sets

    check_placement(device, dtype)
    if like is not None and like not in CONVENTIONS:
        raise UsageError(f"--like is {like!r}, but must be one of {', '.join(CONVENTIONS)}")
    wanted = parse_sets(changes or [])
    sources = pictures_of(images)
    if plan is not None and not overwrite:
        refuse_existing(plan)
    if plan is None:
        make_folder(Path(output))
    with make_view(quiet=quiet, verbose=verbose) as view, hashing(view, look_in) as library:
        run = Run(view, library, wanted, like, as_json)
        if plan is not None:
            run.write_plan(sources, plan, overwrite=overwrite)
        else:
            run.draw_all(sources, Path(output), device, dtype, overwrite=overwrite)
        run.end()


@dataclass
class Run:
    """One command's way through its pictures; what fails is told, and the next one is tried."""

    view: View
    library: Library
    changes: dict[str, Any]
    like: str | None
    as_json: bool
    failed: list[tuple[Path, SdscratchError]] = field(default_factory=list)
    done: int = 0

    def prepared(self, source: Path) -> Replay:
        """A picture, ready to be drawn again."""
        from sdscratch.jobs.replay import prepare, read_recipe

        made = prepare(read_recipe(source), self.library, self.changes, self.like)
        _ = made.job  # checked
        return made

    def write_plan(self, sources: list[Path], plan: Path, *, overwrite: bool) -> None:
        """Every picture as a line that `run` draws."""
        lines = []
        for source in sources:
            try:
                made = self.prepared(source)
            except SdscratchError as error:
                self.fail(source, error)
                continue
            lines.append(json.dumps(made.plan_line))
            for text in made.unmatched:
                self.view.note(f"{source}: not matched: {text}")
            self.done += 1
        if lines:
            with atomic_write(plan, overwrite=overwrite) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
            print_line(json.dumps({"path": str(plan), "lines": len(lines)}) if self.as_json else str(plan))

    def draw_all(
        self, sources: list[Path], folder: Path, device: str, dtype: str, *, overwrite: bool
    ) -> None:
        """Draw, save and compare every picture."""
        from sdscratch.images import save_picture

        names: set[str] = set()
        redrawer: Redrawer | None = None
        try:
            for source in sources:
                try:
                    made = self.prepared(source)
                    redrawer = redrawer or started(self.view, device, dtype)
                    drawn = redrawn(redrawer, made, self.view)
                    path = free_name(folder, source.stem, names, overwrite=overwrite)
                    save_picture(drawn.image, path, drawn.record, overwrite=overwrite)
                except SdscratchError as error:
                    self.fail(source, error)
                else:
                    self.done += 1
                    self.tell(source, made, drawn, path)
        finally:
            if redrawer is not None:
                redrawer.__exit__()

    def tell(self, source: Path, made: Replay, drawn: Drawn, path: Path) -> None:
        """Say where it is, and how near it came."""
        likeness = drawn.likeness
        differs = [*made.differs, *drawn.elsewhere]
        if self.as_json:
            print_json(
                source=str(source), tool=made.recipe.tool, path=str(path),
                psnr=None if likeness.psnr is None else round(likeness.psnr, 2),
                identical=likeness.identical, differs=differs, unmatched=list(made.unmatched),
            )  # fmt: skip
        else:
            print_line(str(path))
        self.view.note(f"{source}, made by {made.recipe.tool}: {likeness}")
        if differs:
            self.view.note(f"  differs: {', '.join(differs)}")
        for text in made.unmatched:
            self.view.note(f"  not matched: {text}")

    def fail(self, source: Path, error: SdscratchError) -> None:
        """Keep what could not be drawn, and with --json say it where the others are said."""
        self.failed.append((source, error))
        if self.as_json:
            print_json(
                source=str(source), tool=tool_of(source), path=None, psnr=None, identical=False, differs=[],
                unmatched=[str(error)],
            )  # fmt: skip

    def end(self) -> None:
        """
        Raises:
            SdscratchError: some pictures could not be drawn; of the one kind, if they all failed by one.
        """
        if not self.failed:
            return
        if len(self.failed) == 1 and not self.done:
            raise self.failed[0][1]
        for source, error in self.failed:
            self.view.note(f"{source}: {error}")
        kinds = {type(error) for _, error in self.failed}
        kind = kinds.pop() if len(kinds) == 1 and not self.done else SdscratchError
        raise kind(f"{len(self.failed)} of {len(self.failed) + self.done} pictures could not be drawn")


def started(view: View, device: str, dtype: str) -> Redrawer:
    """What draws; torch is imported for it."""
    with view.stage("starting", None):
        from sdscratch.jobs.redraw import Redrawer

        return Redrawer(device, dtype)


def redrawn(redrawer: Redrawer, made: Replay, view: View) -> Drawn:
    """Draw one picture again, with its stages shown.

    Raises:
        SdscratchError: it cannot be drawn.
    """
    from sdscratch.jobs.redraw import Drawn

    drawn = None
    with Stages(view, lambda event: STAGES[event.stage]) as stages:
        for event in redrawer.draw(made):
            if isinstance(event, Drawn):
                stages.close()
                drawn = event
            else:
                stages.show(event)  # type: ignore[arg-type]
    assert drawn is not None
    return drawn


@contextmanager
def hashing(view: View, look_in: list[Path] | None) -> Iterator[Library]:
    """The files of this machine; while one that is large is hashed for the first time, a bar says so.

    Raises:
        UsageError: a folder that is none.
    """
    from sdscratch.jobs.finding import Library

    for folder in look_in or ():
        if not folder.is_dir():
            raise UsageError(f"--look-in is {printable(folder)}, but there is no such folder")

    @contextmanager
    def bar(total: int) -> Iterator[Any]:
        with view.stage("hashing", total / MEGABYTE, "MB") as advance:
            yield lambda done: advance(done / MEGABYTE)

    yield Library(look_in or (), bar)


def pictures_of(names: list[str]) -> list[Path]:
    """Pictures, and all that are in folders.

    Raises:
        ImageError: a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, names):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in PICTURES and each.is_file())
        if not inside:
            raise ImageError(f"{printable(path)} holds no PNG, JPEG or WebP picture")
        found += inside
    return found


def free_name(folder: Path, stem: str, names: set[str], *, overwrite: bool) -> Path:
    """A name in the folder that no other picture has, of this run or of another."""
    number = 1
    while True:
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        taken = path.name in names or (not overwrite and path.exists())
        if not taken:
            names.add(path.name)
            return path
        number += 1


def tool_of(source: Path) -> str | None:
    """Which tool made a picture, if it says."""
    from sdscratch.images import read_records

    try:
        return read_records(source).tool
    except SdscratchError:
        return None


def print_json(**values: Any) -> None:
    """A line of JSON on stdout."""
    print_line(json.dumps(values))
