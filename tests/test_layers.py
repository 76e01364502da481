"""The plan of the house: imports run strictly downward, and nothing light waits for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdscratch

ROOT = Path(sdscratch.__file__).parent

# From the ground up. A module may import from the floors below its own, and from its own package.
FLOORS = (
    {"errors", "hardware", "home", "show", "streams", "texts", "version"},
    {"addons.blocks", "checks", "settings"},  # how add-ons are asked for stands below the add-ons themselves
    {"addons.requests"},
    {"files", "models"},
    {"diffusion"},
    {"options"},
    {"device", "text", "images", "tensorfiles"},
    {"checkpoints", "fast"},
    {"addons"},
    {"generation", "training"},
    {"bench", "explain", "jobs"},
    {"pictograms"},
    {"evaluation"},
    {"cli"},
    {"__main__"},
)
# The same within training/: from the loop, which knows nothing of pictures, to what is trained.
TRAINING = ("engine", "dataset", "run", "tasks")
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# What is compared with, in tests and measurements: never a part of what runs.
REFERENCES = {
    "spandrel",
    *(
        "compel",
        "diffusers",
        "gguf",
        "dynamicprompts",
        "k_diffusion",
        "lycoris",
        "nncf",
        "open_clip",
        "openvino",
        "peft",
        "skimage",
    ),
    *("stable_diffusion_cpp", "torchsde", "transformers"),
}
TORCH_FREE = (
    "sdscratch",
    "sdscratch.bench.memory",
    "sdscratch.bench.peers.worker",
    "sdscratch.addons.apply",
    "sdscratch.addons.cards",
    "sdscratch.addons.control",
    "sdscratch.addons.describe",
    "sdscratch.addons.requests",
    "sdscratch.checkpoints.layouts",
    "sdscratch.checkpoints.network_file",
    "sdscratch.cli.app",
    "sdscratch.cli.schedule",
    "sdscratch.diffusion.catalogue",
    "sdscratch.diffusion.conventions",
    "sdscratch.diffusion.spacing",
    "sdscratch.diffusion.spellings",
    "sdscratch.images",
    "sdscratch.images.compare",
    "sdscratch.images.film",
    "sdscratch.images.terminal",
    "sdscratch.jobs.replay",
    "sdscratch.jobs.verify",
    "sdscratch.models.config",
    "sdscratch.options",
    "sdscratch.settings",
    "sdscratch.generation.outputs",
    "sdscratch.text.reading",
    "sdscratch.text.tokenizer",
    "sdscratch.text.wildcards",
    "sdscratch.jobs.plan",
    "sdscratch.training.tasks.architectures",
    "sdscratch.training.run.curve",
    "sdscratch.training.dataset.folder",
    "sdscratch.training.dataset.plan",
    "sdscratch.training.dataset.shapes",
    "sdscratch.training.run.lora_options",
    "sdscratch.training.run.run_folder",
)


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def modules_of(package: str) -> list[Path]:
    """The files in the rooms of a package, without its own `__init__`."""
    return [path for path in modules() if path.is_relative_to(ROOT / package) and path.parent.name != package]


def imported(path: Path) -> list[str]:
    """The full names of the project's modules that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "sdscratch"]


def home(parts: tuple[str, ...]) -> str:
    """The module or package that a path or a dotted name belongs to, the innermost with a floor."""
    names = [part.removesuffix(".py") for part in parts]
    inner = ".".join(names[:2])
    return inner if inner in FLOOR_OF else names[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_strictly_downward(path: Path) -> None:
    own = home(path.relative_to(ROOT).parts)
    for name in imported(path):
        other = home(tuple(name.split(".")[1:]))
        if other != own:
            assert FLOOR_OF[other] < FLOOR_OF[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", modules_of("training"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_within_training_run_downward(path: Path) -> None:
    own = path.relative_to(ROOT).parts[1]
    for name in imported(path):
        if name.startswith("sdscratch.training."):
            assert TRAINING.index(name.split(".")[2]) <= TRAINING.index(own), f"{own} imports {name}"


def test_modules_of_a_package_do_not_import_each_other_in_circles() -> None:
    graph = {}
    for path in modules():
        name = ".".join(("sdscratch", *path.relative_to(ROOT).with_suffix("").parts))
        graph[name] = set(imported(path))
    names = {known for known in graph if not known.endswith("__init__")}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for target in graph[name]:
            for known in (target, target.rpartition(".")[0]):
                if known in names and known not in done:
                    visit(known, (*trail, name))
        done.add(name)

    done: set[str] = set()
    for name in sorted(names):
        visit(name, ())


def test_every_module_has_its_floor() -> None:
    assert {home(path.relative_to(ROOT).parts) for path in modules()} == set(FLOOR_OF)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_light_modules_do_not_import_torch(module: str) -> None:
    check = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def packages(node: ast.AST) -> set[str]:
    """The outermost packages that are imported anywhere in a part of a file."""
    inside = list(ast.walk(node))
    names = [alias.name for each in inside if isinstance(each, ast.Import) for alias in each.names]
    names += [each.module or "" for each in inside if isinstance(each, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_the_references_is_imported_but_to_be_measured(path: Path) -> None:
    """One file alone knows other engines: it measures them, and imports each when it is that one's turn."""
    tree = ast.parse(path.read_text())
    if path != ROOT / "bench" / "peers" / "engines.py":
        assert not packages(tree) & REFERENCES
        return
    assert packages(tree) & REFERENCES == {"diffusers", "nncf", "openvino", "stable_diffusion_cpp"}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        function.body = [ast.Pass()]
    assert not packages(tree) & REFERENCES


@pytest.mark.parametrize(
    "command",
    [
        *(
            [],
            ["txt2img"],
            ["img2img"],
            ["explain"],
            ["convert-weights"],
            ["tokens"],
            ["schedule"],
            ["info"],
            ["evaluate"],
            ["bench"],
            ["replay"],
            ["verify"],
        ),
        *(
            ["train"],
            ["train", "autoencoder"],
            ["train", "diffusion"],
            ["train", "shapes"],
            ["train", "lora"],
        ),
    ],
)
def test_help_does_not_import_torch(command: list[str]) -> None:
    check = (
        "import sys; sys.argv = ['sdscratch', *sys.argv[1:], '--help']\n"
        "from sdscratch.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(99 if 'torch' in sys.modules else end.code)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", check, *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
