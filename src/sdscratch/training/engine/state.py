"""A run at one moment, as a file: everything that its next step depends on.

A checkpoint is a safetensors file: weights, their average and the optimiser's moments by our names, float32,
what is not trained left out. What is random in a run is a function of the step (`rng`), so a step's number
stands for every generator.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.writer import SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.errors import CheckpointError
from sdscratch.files import atomic_write
from sdscratch.tensorfiles.reader import TensorFile, open_tensors
from sdscratch.training.engine.ema import EMA

__all__ = ["FOLDER", "State", "checkpoints", "forget_later", "load_weights", "newest_checkpoint", "prune"]

log = logging.getLogger(__name__)

FOLDER = "checkpoints"  # in a run's folder
NAME = re.compile(r"step-(\d{8,})\.safetensors")
STEP, SECONDS = "sdscratch.step", "sdscratch.seconds"  # keys of the file's metadata
CHECKSUM = "checksum"  # the one tensor of bytes: of everything before it


@dataclass
class State:
    """What a run changes as it goes."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    ema: EMA | None
    step: int = 0
    seconds: float = 0.0

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that a step changes."""
        return self.optimiser.param_groups[0]["params"]  # type: ignore[no-any-return]

    def save(self, folder: Path) -> Path:
        """Write a checkpoint, complete or not at all.

        Raises:
            SdscratchError: the operating system refuses.
        """
        checksum = _start(str(self.step), repr(self.seconds))

        def entry(name: str, tensor: Tensor) -> Entry:
            def read() -> Tensor:
                nonlocal checksum
                on_cpu = tensor.detach().cpu().contiguous()
                checksum = _checksum(on_cpu, checksum)
                return on_cpu

            return Entry(name, SAFETENSORS_NAMES[tensor.dtype], tuple(tensor.shape), read)

        entries = [entry(name, tensor) for name, tensor in self._tensors().items()]
        # read last, for its elements are the smallest
        entries.append(Entry(CHECKSUM, "U8", (4,), lambda: _bytes(checksum)))
        path = folder / f"step-{self.step:08}.safetensors"
        metadata = {STEP: str(self.step), SECONDS: repr(self.seconds)}
        with atomic_write(path, overwrite=True) as file:
            write_safetensors(file, entries, metadata, lambda _: None)
        return path

    def load(self, path: Path) -> None:
        """Become what was saved.

        Raises:
            CheckpointError: the file is damaged, or another network's.
        """
        with open_checkpoint(path) as file:
            step, seconds = int(file.metadata[STEP]), float(file.metadata[SECONDS])
            if step:
                self._start_optimiser()
            own = self._tensors()
            _check_same(path, own, file)
            with torch.no_grad():
                for name, tensor in own.items():
                    tensor.copy_(file.read(name))
        self.step, self.seconds = step, seconds

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        trained = dict(_trained(self.module))
        averages = self.ema.averages if self.ema is not None else ()
        tensors |= {f"weight.{name}": weight for name, weight in trained.items()}
        tensors |= {f"average.{name}": value for name, value in zip(trained, averages, strict=False)}
        for name, weight in trained.items():
            for key, value in self.optimiser.state.get(weight, {}).items():
                tensors[f"optimiser.{key}.{name}"] = value
        return tensors

    def _start_optimiser(self) -> None:
        """Make the optimiser's tensors, as its first step does, without changing a weight."""
        rates = [group["lr"] for group in self.optimiser.param_groups]
        for _, weight in _trained(self.module):
            weight.grad = torch.zeros_like(weight)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.0
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)


def _check_same(path: Path, own: dict[str, Tensor], file: TensorFile) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: info.shape for name, info in file.tensors.items() if name != CHECKSUM}
    if shapes != found:
        odd = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        raise CheckpointError(
            f"{path} is of another network or optimiser ({odd[0]} differs, and {len(odd) - 1} more); "
            "resume with the options that the run began with"
        )


def _bytes(checksum: int) -> Tensor:
    return torch.tensor(list(checksum.to_bytes(4, "little")), dtype=torch.uint8)


def _start(step: str, seconds: str) -> int:
    return zlib.crc32(f"{step} {seconds}".encode())


def _checksum(tensor: Tensor, start: int) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, start)


def open_checkpoint(path: Path) -> TensorFile:
    """A checkpoint, read through and found whole.

    Raises:
        CheckpointError: it is missing, damaged, or no checkpoint.
    """
    file = open_tensors(path)
    if {STEP, SECONDS} - file.metadata.keys() or CHECKSUM not in file.tensors:
        raise CheckpointError(
            f"{path} is no checkpoint of a training run; name a file of its {FOLDER} folder"
        )
    checksum = _start(file.metadata[STEP], file.metadata[SECONDS])
    for name in file.tensors:  # in the file's order
        if name != CHECKSUM:
            checksum = _checksum(file.read(name), checksum)
    if not torch.equal(file.read(CHECKSUM), _bytes(checksum)):
        raise CheckpointError(f"{path} is damaged: its checksum is another; delete it")
    return file


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first; names only, nothing is opened."""
    found = folder.iterdir() if folder.is_dir() else iter(())
    matches = [(int(match[1]), path) for path in found if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(matches, reverse=True)]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; those that are not are passed over with a warning."""
    for path in checkpoints(folder):
        try:
            open_checkpoint(path).close()
        except CheckpointError as error:
            log.warning("%s; the checkpoint before it is taken", error)
        else:
            return path
    return None


def prune(folder: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half-written."""
    for path in [*checkpoints(folder)[keep or None :], *folder.glob(".sdscratch-*.part")]:
        with suppress(OSError):
            path.unlink()


def forget_later(folder: Path, step: int) -> None:
    """Delete the checkpoints after a step: a run goes on from before them, or they are damaged."""
    for path in checkpoints(folder):
        if path.name > f"step-{step:08}.safetensors":
            path.unlink()


def load_weights(folder: Path, module: nn.Module) -> int:
    """Fill what is trained in `module` with the averages of a run's newest checkpoint; return its step.

    Raises:
        CheckpointError: there is none, or it is of another network.
    """
    path = newest_checkpoint(folder / FOLDER)
    if path is None:
        raise CheckpointError(f"{folder} holds no checkpoint; train there first")
    with open_checkpoint(path) as file:
        kind = "average" if any(name.startswith("average.") for name in file.tensors) else "weight"
        own = {f"{kind}.{name}": weight for name, weight in _trained(module)}
        missing = sorted(own.keys() - file.tensors.keys())
        if missing or any(tuple(own[name].shape) != file.tensors[name].shape for name in own):
            raise CheckpointError(f"{path} is of another network than the one that is to be filled")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(file.read(name))
        return int(file.metadata[STEP])
