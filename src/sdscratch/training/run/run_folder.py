"""The folder that a run is kept in: claimed before any work, and never two runs in one (no torch)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sdscratch.errors import UsageError
from sdscratch.files import make_folder
from sdscratch.training.run.config_file import CONFIG, differences, read_config, write_config
from sdscratch.training.run.options import TrainOptions

__all__ = ["LATEST", "MODEL", "SAMPLES", "RunFolder", "collect"]

log = logging.getLogger(__name__)

LATEST = "latest"
SAMPLES = "samples"  # grids of pictures, in a run's folder
MODEL = "model.safetensors"  # what a run ends with

Kind = TypeVar("Kind", bound=TrainOptions)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, and the checkpoint file it goes on from where one was named."""

    path: Path
    command: str
    resumes: bool
    checkpoint: Path | None
    before: Mapping[str, Any] | None  # the options that it began with

    def refuse_other(self) -> None:
        """Refuse a folder with another run in it, or with something else.

        Raises:
            UsageError: there is.
        """
        if not self.resumes and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                f"{self.path} exists already and is not empty; go on with it by "
                f"--resume-from-checkpoint {LATEST}, or choose another --output"
            )

    def claim(self, options: TrainOptions) -> None:
        """Make the folder, and write the options into it; say which of them differ from those it began with.

        Raises:
            SdscratchError: the operating system refuses.
        """
        if self.before is not None and (changed := differences(self.before, options)):
            log.warning("the run goes on with other options: %s", "; ".join(changed))
        make_folder(self.path / SAMPLES)
        write_config(self.path / CONFIG, self.command, options)


def collect(
    command: str, kind: type[Kind], typed: Mapping[str, Any], config: Path | None, resume: str | None
) -> tuple[Kind, RunFolder]:
    """All options: what was typed, before what a file says, before defaults.

    The file is `config`; where a run is resumed, its own.

    Raises:
        UsageError: as `TrainOptions`, `read_config`; or the checkpoint is not there.
    """
    values = read_config(config, command, kind) if config is not None else {}
    folder = Path(typed.get("output") or values.get("output") or "")
    own = folder / CONFIG
    before = read_config(own, command, kind) if resume and folder != Path() and own.is_file() else None
    if config is None and before is not None:
        values = {**before, "output": str(folder)}
        for one, other in (
            ("max_train_steps", "max_train_minutes"),
            ("max_train_minutes", "max_train_steps"),
        ):
            if one in typed:
                values.pop(other, None)
    options = kind(**{**values, **typed})
    checkpoint = None if resume in (None, LATEST) else Path(str(resume))
    if checkpoint is not None and not checkpoint.is_file():
        raise UsageError(f"--resume-from-checkpoint {resume} is no file; say {LATEST}, or name a checkpoint")
    return options, RunFolder(folder, command, bool(resume), checkpoint, before)
