"""CLIP's table of merges, which single files lack and nearly every machine that draws has already.

It is not ours to ship. Other programs keep it in Hugging Face's cache, inside packages (which are found, not
imported), or in folders of their own; whatever file is met there counts only if its merges are CLIP's, by
their hash. What was found once is kept in the user's cache for good. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, product
from pathlib import Path

from sdscratch.checkpoints.places import cache_folder, tokenizer_folder
from sdscratch.errors import SdscratchError, TokenizerError
from sdscratch.files import atomic_write
from sdscratch.home import expanded, home
from sdscratch.text.files import read_merges
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.vocabulary import Merge

__all__ = ["FILES", "find_clip", "keep", "merges_hash"]

log = logging.getLogger(__name__)

# The SHA-256 of CLIP's 48,894 merges, a line each, whatever file they are in.
CLIP_MERGES = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02"
KEPT = "clip-merges.txt"  # in the user's cache

# The names that the table goes by: OpenAI's, transformers', and the tokenizers library's.
FILES = ("merges.txt", "bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt", "tokenizer.json")
LARGEST = 8 << 20  # bytes; of other models' tokenizers, many are larger

# Variables by which people tell programs where a tool lies: COMFYUI_PATH, WEBUI_DIR, …
TOOLS = ("COMFYUI", "COMFY", "A1111", "AUTOMATIC1111", "WEBUI", "SD_WEBUI", "STABLE_DIFFUSION_WEBUI", "FORGE")
ENDS = ("PATH", "DIR", "ROOT", "HOME", "FOLDER", "BASE")
HOMES = ("ComfyUI", "stable-diffusion-webui", "stable-diffusion-webui-forge", "sd-webui", "forge")
ANCESTORS = 5  # a model lies in TOOL/models/Stable-diffusion/somewhere/

PACKAGES = ("open_clip", "clip", "transformers")  # also where they were installed without a list of files
SITE_PACKAGES = (
    *("venv/lib/python3*/site-packages", ".venv/lib/python3*/site-packages", "venv/Lib/site-packages"),
    *(".venv/Lib/site-packages", "python_embeded/Lib/site-packages", "system/python/Lib/site-packages"),
)
# Where a tool's folder holds it.
IN_TOOLS = (
    *("comfy/sd1_tokenizer", "ComfyUI/comfy/sd1_tokenizer", "webui"),  # ComfyUI; one-click installers
    *("backend/huggingface/*/*/tokenizer", "webui/backend/huggingface/*/*/tokenizer"),  # Forge
    *("repositories/*/clip", "repositories/*/*/clip"),
    *(f"{packages}/{package}" for packages in SITE_PACKAGES for package in PACKAGES[:2]),
    ".",
)
IN_SNAPSHOTS = ("snapshots/*", "snapshots/*/tokenizer", "snapshots/*/tokenizer_2")


def find_clip(model: Path) -> Tokenizer | None:
    """CLIP's tokenizer, found on this machine; None where nothing holds it.

    Args:
        model: the file that lacks it; a tool's folder may be the one around it.
    """
    kept = cache_folder()
    seen = set[Path]()
    for path in chain([] if kept is None else [kept / KEPT], _candidates(model)):
        if path in seen:
            continue
        seen.add(path)
        if (merges := _clips(path)) is not None:
            log.info("CLIP's tokenizer is the one in %s", path)
            tokenizer = Tokenizer.from_merges(merges)
            keep(tokenizer)
            return tokenizer
    return None


def keep(tokenizer: Tokenizer) -> None:
    """Remember CLIP's tokenizer in the user's cache, where there is one; any other is not kept."""
    folder = cache_folder()
    merges = tokenizer.vocabulary.merges
    if folder is None or (folder / KEPT).is_file() or merges_hash(merges) != CLIP_MERGES:
        return
    with suppress(OSError, SdscratchError):  # a cache that cannot be written is none
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / KEPT, overwrite=True) as file:
            file.write("".join(f"{left} {right}\n" for left, right in merges).encode())


def merges_hash(merges: Iterable[Merge]) -> str:
    """The SHA-256 of merges, a line each: the same for a table in any of its forms."""
    return hashlib.sha256("".join(f"{left} {right}\n" for left, right in merges).encode()).hexdigest()


def _clips(path: Path) -> Sequence[Merge] | None:
    """A file's merges, if they are CLIP's."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        merges = read_merges(path)
    except (OSError, TokenizerError):  # another model's, broken, or not ours to read
        return None
    return merges if merges_hash(merges) == CLIP_MERGES else None


def _candidates(model: Path) -> Iterator[Path]:
    """Files that may hold it, the likeliest first; each is looked for when its turn comes."""
    for folder in dict.fromkeys(hub_caches()):
        yield from _in_cache(folder)
    yield from _in_packages()
    for folder in dict.fromkeys(_tools(model)):
        yield from _files(folder, IN_TOOLS)


def hub_caches() -> Iterator[Path]:
    """Where Hugging Face's libraries keep what they fetch, in every place that a variable names."""
    named = [os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")]
    yield from (expanded(name) for name in named if name)
    own = home()
    cache = os.environ.get("XDG_CACHE_HOME") or (own and own / ".cache")
    for base in (os.environ.get("HF_HOME"), cache and Path(cache) / "huggingface"):
        if base:
            yield expanded(base) / "hub"


def _in_cache(folder: Path) -> Iterator[Path]:
    """A cache's repositories, CLIP's and Stable Diffusion's before others."""

    def likely(path: Path) -> tuple[bool, str]:
        return not any(word in path.name.lower() for word in ("clip", "diffusion")), path.name

    for repository in sorted(_matching(folder, "models--*"), key=likely):
        yield from _files(repository, IN_SNAPSHOTS)


def _in_packages() -> Iterator[Path]:
    """Files of installed packages: by their lists of files, and in packages known to have it."""
    for name in PACKAGES:
        with suppress(ImportError, ValueError):  # ValueError: somebody's half-made module
            spec = importlib.util.find_spec(name)
            for folder in (spec and spec.submodule_search_locations) or ():
                yield from (Path(folder) / file for file in FILES[1:3])
    for distribution in importlib.metadata.distributions():
        listed = distribution.read_text("RECORD") or ""
        if any(file in listed for file in FILES[:3]):
            for line in listed.splitlines():
                name = line.split(",")[0].strip('"')
                if name.rpartition("/")[2] in FILES[:3]:
                    yield Path(str(distribution.locate_file(name)))


def _tools(model: Path) -> Iterator[Path]:
    """Folders of other tools: as variables name them, around the model, where they lie by default."""
    yield from filter(None, (tokenizer_folder(),))
    for tool, end in product(TOOLS, ENDS):
        if named := os.environ.get(f"{tool}_{end}"):
            folder = expanded(named)
            yield from (folder, folder.parent)  # a portable ComfyUI has its Python beside it
    for path in dict.fromkeys((model.absolute(), model.resolve())):
        yield from list(path.parents)[:ANCESTORS]
    own = home()
    yield from (own / name for name in HOMES if own is not None)


def _files(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        for place in [folder] if pattern == "." else _matching(folder, pattern):
            yield from (place / file for file in FILES)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Folders in a folder, sorted; none where it cannot be looked into."""
    try:
        return sorted(path for path in folder.glob(pattern) if path.is_dir())
    except (OSError, ValueError, NotImplementedError):
        return []
