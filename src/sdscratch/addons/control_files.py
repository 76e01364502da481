"""What files of controls have in common: opened, told apart, each weight in its place. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts.rows import Weight
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.source import Stored, choose_weights, read_json, shards
from sdscratch.errors import CheckpointError
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.header import FLOATS
from sdscratch.tensorfiles.identify import Identity, identify
from sdscratch.tensorfiles.reader import open_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ControlFile", "OpenedFiles", "load_weights", "opened_files", "placed_weights"]

WEBUI_START, WEBUI_LENGTH = 0x100000, 0x10000  # the bytes that the web UI's extension tells a file by


class ControlFile(Protocol):
    """A control's network of which nothing is in memory yet: a `checkpoints.network_file.NetworkFile`."""

    @property
    def files(self) -> OpenedFiles:
        """Where it lies."""
        ...

    @property
    def title(self) -> str:
        """What messages call it."""
        ...

    @property
    def small(self) -> bool:
        """As of `NetworkFile`."""
        ...

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run."""
        ...


@dataclass(frozen=True, eq=False)
class OpenedFiles:
    """A control's file, or its diffusers folder."""

    path: Path
    tensors: Mapping[str, Stored]
    config: Mapping[str, Any]  # a folder's config.json
    metadata: Mapping[str, str]

    @property
    def name(self) -> str:
        """What people call it: without suffix, and no path."""
        return self.path.resolve().name if self.path.is_dir() else self.path.stem

    @property
    def identity(self) -> Identity:
        """What it is, by its tensors."""
        return identify({name: stored.info.shape for name, stored in self.tensors.items()})

    @property
    def paths(self) -> list[Path]:
        """The files of weights."""
        return list(dict.fromkeys(stored.file.path for stored in self.tensors.values()))

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of it the first time."""
        return hash_files(self.paths)

    def webui_hash(self) -> str:
        """Eight digits, as the web UI's extension writes them behind a name."""
        import hashlib

        with self.paths[0].open("rb") as file:
            file.seek(WEBUI_START)
            return hashlib.sha256(file.read(WEBUI_LENGTH)).hexdigest()[:8]


def opened_files(path: Path) -> OpenedFiles:
    """Open a file, or the weights of a diffusers folder.

    Raises:
        CheckpointError: unreadable, damaged, or no weights in the folder.
    """
    if not path.is_dir():
        file = open_tensors(path)
        return OpenedFiles(path, {name: Stored(file, name) for name in file.tensors}, {}, file.metadata)
    names = {each.name for each in path.iterdir()}
    chosen = choose_weights("unet", names) or choose_weights("text_encoder", names)  # an image encoder's
    if chosen is None:
        raise CheckpointError(f"{path} holds no file of weights beside its config.json; name a whole folder")
    parts = shards(path / chosen) if chosen.endswith(".json") else [chosen]
    files = [open_tensors(path / name) for name in parts]
    tensors = {name: Stored(file, name) for file in files for name in file.tensors}
    return OpenedFiles(path, tensors, read_json(path / "config.json"), {})


def placed_weights(
    files: OpenedFiles, what: str, expected: Iterable[Weight], layout: Layout, prefix: str, of: str
) -> dict[Weight, Stored]:
    """Every weight's tensor, after a check that all are there in the right shape, and nothing unknown is.

    Args:
        what: the network, in words.
        prefix: what the file has in front of the layout's names; names without it are not looked at.
        of: what such a network fits, in words.

    Raises:
        CheckpointError: it is incomplete, or made for another kind of model.
    """
    own = {name.removeprefix(prefix): s for name, s in files.tensors.items() if name.startswith(prefix)}
    stored: dict[Weight, Stored] = {}
    missing = []
    weights = tuple(expected)
    for weight in weights:
        found = own.get(weight.stored(layout)[0])
        if found is None:
            missing.append(weight.stored(layout)[0])
        elif not weight.fits(found.info.shape, layout) or found.info.dtype not in FLOATS:
            raise CheckpointError(
                f"{files.path} is {what} for another kind of model: it holds {printable(found.name)} as "
                f"{found.info.dtype} {list(found.info.shape)}, but {of} needs "
                f"{list(weight.stored(layout)[1])}"
            )
        else:
            stored[weight] = found
    if missing:
        raise CheckpointError(f"{files.path} is no whole {what.split(' ', 1)[1]}: it lacks {listed(missing)}")
    known = {weight.stored(layout)[0] for weight in weights}
    if unknown := [name for name in own if name not in known]:
        raise CheckpointError(
            f"{files.path} holds {listed(unknown)}, which {what} for Stable Diffusion 1.x does not have"
        )
    return stored


def load_weights(
    make: Callable[[], nn.Module],
    reads: Sequence[tuple[Weight, Callable[[], Tensor]]],
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """A network of these weights, ready to run: in eval mode, without gradients."""
    from sdscratch.checkpoints.empty import empty, placed

    network = empty(make)
    state = {weight.name: placed(read(), device, dtype) for weight, read in reads}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)
