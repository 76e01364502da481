"""The Hugging Face hub, asked for a model named by its hub id, and for CLIP's tokenizer if none is here.

What was fetched once lies in huggingface_hub's own cache and works offline. $HF_ENDPOINT, $HF_HOME,
$HF_HUB_OFFLINE and the user's login are that library's and mean what they always do.
This module imports no torch.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sdscratch.checkpoints.places import tokenizer_folder
from sdscratch.checkpoints.source import COMPONENTS, CONFIGS, WHOLE_VAE, choose_weights
from sdscratch.errors import CheckpointError, TokenizerError
from sdscratch.show import printable

__all__ = ["fetch_model", "fetch_tokenizer"]

log = logging.getLogger(__name__)

CLIP = "openai/clip-vit-large-patch14"
CLIP_FILES = ("vocab.json", "merges.txt")
SINGLE_FILES = (".safetensors", ".ckpt")
TIMEOUT = 10.0  # seconds

# huggingface_hub's exceptions, the special ones first; what none of these is did not reach the hub.
REASONS = {
    "GatedRepoError": "accept its licence on the hub's page, then log in with `hf auth login`",
    "RepositoryNotFoundError": "the hub has none of that name, or it is private; check the name",
    "HFValidationError": "that is no hub id; check the name",
    "OfflineModeIsEnabled": "$HF_HUB_OFFLINE is set, and it was not fetched before",
}


def fetch_model(repository: str) -> Path:
    """The diffusers folder, or else the single file, of a hub repository: only what a picture needs of it.

    Raises:
        CheckpointError: no such repository, no model in it, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        files = _wanted(repository, _listing(repository))
        log.info("fetching %s from the hub", repository)
        folder = Path(snapshot_download(repository, allow_patterns=files, endpoint=_endpoint()))
    except CheckpointError:
        raise
    except Exception as error:  # whichever library carries the requests raises its own
        cached = _cached(repository)
        if cached is None:
            raise CheckpointError(f"there is no model {repository} here, and {_reason(error)}") from error
        folder = cached
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = _wanted(repository, names)
    return folder if len(files) > 1 else folder / files[0]


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _listing(repository: str) -> list[str]:
    """The files of a repository, by a request that is not repeated: a hub out of reach is noticed at once."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns about every attempt
    if not sys.stderr.isatty():
        disable_progress_bars()
    siblings = HfApi(endpoint=_endpoint()).model_info(repository, timeout=TIMEOUT).siblings
    return [sibling.rfilename for sibling in siblings or []]


def _wanted(repository: str, names: Sequence[str]) -> list[str]:
    """Of all the repository's files those to fetch: a folder's, or one single file."""
    if set(CONFIGS) <= set(names):
        return _folder_files(names)
    for suffix in SINGLE_FILES:
        single = [name for name in names if "/" not in name and name.endswith(suffix)]
        if len(single) == 1:
            return single
        if single:
            raise CheckpointError(
                f"{repository} holds several models ({', '.join(map(printable, single[:3]))}, …); "
                "download one of them and name the file"
            )
    raise CheckpointError(f"{repository} on the hub holds no Stable Diffusion model; name another")


def _folder_files(names: Sequence[str]) -> list[str]:
    wanted = [
        name
        for name in names
        if name
        in ("model_index.json", "scheduler/scheduler_config.json", *CONFIGS, f"{WHOLE_VAE}/config.json")
        or name.startswith("tokenizer/")
    ]
    for component in (*COMPONENTS, WHOLE_VAE):
        inside = {
            PurePosixPath(name).name
            for name in names
            if PurePosixPath(name).parent == PurePosixPath(component)
        }
        chosen = choose_weights(component, inside)
        if chosen is not None and chosen.endswith(".json"):
            suffix = ".bin" if ".bin." in chosen else ".safetensors"
            wanted += [
                f"{component}/{name}" for name in sorted(inside) if "-of-" in name and name.endswith(suffix)
            ]
        wanted += [f"{component}/{chosen}"] if chosen is not None else []
    return wanted


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        # no pattern: whatever is there, for we do not know what was wanted of it
        return Path(snapshot_download(repository, local_files_only=True, allow_patterns=[]))
    except Exception:  # never fetched
        return None


def _reason(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in REASONS:
            return REASONS[kind.__name__]
    what = printable(str(error) or type(error).__name__)
    return f"the hub cannot be reached ({what}); check the connection"


def fetch_tokenizer(model: Path) -> Path:
    """The folder with CLIP's `vocab.json` and `merges.txt`, for a model that came without.

    Raises:
        TokenizerError: they were not fetched before and cannot be now; says which two files to put where.
    """
    from huggingface_hub import snapshot_download

    wanted = list(CLIP_FILES)
    try:
        return Path(snapshot_download(CLIP, allow_patterns=wanted, local_files_only=True))
    except Exception:  # never fetched
        log.info("fetching CLIP's tokenizer from the hub")
    try:
        _listing(CLIP)
        return Path(snapshot_download(CLIP, allow_patterns=wanted, endpoint=_endpoint()))
    except Exception as error:  # whichever library carries the requests raises its own
        own = tokenizer_folder()
        raise TokenizerError(
            f"{model} comes without its tokenizer, and {_reason(error)}; "
            f"else get {' and '.join(CLIP_FILES)} of {CLIP} and put them beside the model"
            f"{'' if own is None else f' or in {own}'}, or name their folder with --tokenizer"
        ) from error
