"""What frozen networks make of a folder, computed once: latents of pictures, embeddings of captions.

One safetensors file holds one tensor and is named by a hash of all that it depends on: the picture's bytes,
its framing and the encoder's weights; or the caption and the text encoder's. So what is found is right,
whoever wrote it, and several runs and processes share a folder: all would write the same.

Everything is computed in float32, a picture or a caption at a time, and kept in float32: what is read back is
bit for bit what was computed, in any company and on any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sdscratch.errors import ImageError
from sdscratch.files import write_error
from sdscratch.hardware import device_kind
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Encoder
from sdscratch.training.dataset.folder import digest
from sdscratch.training.dataset.folder_source import FolderSource, to_tensor
from sdscratch.training.dataset.plan import View
from sdscratch.training.dataset.source import Latents

__all__ = ["CachedLatents", "CachedTexts", "TensorStore", "fingerprint"]

KEY, CHECKSUM = "sdscratch.cache", "sdscratch.crc32"  # in a file's metadata
NAME = "values"  # of its tensor
DIGITS = 40  # of a key: enough that no two are ever the same

Report = Callable[[int, int], None]  # done, of how many


def fingerprint(module: nn.Module, *about: object) -> str:
    """A hash of a network's weights, and of whatever else its results depend on."""
    state = hashlib.sha256(repr(about).encode())
    for name, tensor in sorted(module.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


class TensorStore:
    """Tensors in a folder, by the hash of what they were computed from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the tensor of `key` is kept: in one of 256 folders, for large ones are slow in places."""
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def read(self, key: str) -> Tensor | None:
        """What was kept; None if nothing was, or the file is torn, damaged or another's."""
        try:
            with safe_open(self.path(key), "pt") as file:
                metadata, tensor = file.metadata() or {}, file.get_tensor(NAME)
        except (OSError, SafetensorError):
            return None
        whole = metadata.get(KEY) == key and metadata.get(CHECKSUM) == _checksum(tensor)
        return tensor if whole else None

    def write(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor, replacing what has its name.

        Raises:
            SdscratchError: the operating system refuses.
        """
        tensor = tensor.detach().cpu().contiguous()
        path = self.path(key)
        temporary = path.with_name(f".sdscratch-{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # not synced to the disk, which would take longer than the network: the checksum tells
            temporary.write_bytes(save({NAME: tensor}, {KEY: key, CHECKSUM: _checksum(tensor)}))
            temporary.replace(path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def find(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """What was kept, or what `make` makes, which is kept then."""
        tensor = self.read(key)
        if tensor is None:
            tensor = make()
            self.write(key, tensor)
        return tensor


class CachedLatents:
    """A `LatentSource`: the latents of a folder whose views are fixed (`FolderSource.fixed_views`).

    What is missing is computed when it is asked for. After `fill` nothing is, so the encoder is let go of;
    were a file to vanish meanwhile, it would be loaded again.

    Args:
        load: gives the encoder, on `device`.
        config: what the encoder is made from.
        folder: where latents are kept; runs may share it.
    """

    def __init__(
        self,
        source: FolderSource,
        load: Callable[[], Encoder],
        config: AutoencoderConfig,
        folder: Path,
        device: torch.device,
    ) -> None:
        assert source.fixed_views, "random crops cannot be kept"
        self.source, self.load, self.device = source, load, device
        self.scale = config.latent_scale
        self.store = TensorStore(folder)
        self.encoder: Encoder | None = load()
        self.network = fingerprint(self.encoder, config)
        self._digests: dict[Path, str] = {}

    def fill(self, rank: int = 0, processes: int = 1, report: Report = lambda done, total: None) -> None:
        """Compute this process's share of what is missing, and let go of the encoder.

        Pictures that turn out to be broken are told of, and passed over.
        """
        views = self.source.views()[rank::processes]
        pool = ThreadPoolExecutor(self.source.threads)  # reading, decoding and encoding overlap
        try:
            for done, _ in enumerate(pool.map(self._keep, views), 1):
                report(done, len(views))
        finally:
            pool.shutdown(cancel_futures=True)
        self.encoder = None

    def __call__(self, step: int, indices: range) -> Latents:
        """The scaled posterior means at `indices` of step `step`'s batch.

        Raises:
            ImageError: all pictures of a bucket are broken.
        """
        found = [self.source.sound(self.source.plan.view(step, index), self.mean) for index in indices]
        means = torch.stack([mean for _, mean in found]).to(self.device)
        return Latents(means * self.scale, tuple(self.source.caption(view) for view, _ in found))

    def mean(self, view: View) -> Tensor:
        """[c, h, w] float32, on the CPU.

        Raises:
            ImageError: the picture is broken.
        """
        path = self.source.path(view)
        if path not in self._digests:
            self._digests[path] = digest(path)
        key = _key(self._digests[path], view.size, view.flipped, self.network)
        return self.store.find(key, lambda: self._encode(view))

    def _keep(self, view: View) -> None:
        try:
            self.mean(view)
        except ImageError as error:
            self.source.tell(view, error)

    @torch.no_grad()
    def _encode(self, view: View) -> Tensor:
        if self.encoder is None:
            self.encoder = self.load()
        picture = to_tensor([self.source.levels(view)], self.device)
        with torch.autocast(device_kind(self.device), enabled=False):
            mean: Tensor = self.encoder(picture).mean
        return mean[0].float().cpu()  # where what was kept is, too: batches are made of both


class CachedTexts:
    """`Words`: embeddings of captions by a frozen text encoder, each computed once.

    Args:
        encode: a caption → its embedding [t, width], float32.
        network: the `fingerprint` of what `encode` depends on, tokenizer included.
        folder: where embeddings are kept; runs may share it.
    """

    def __init__(
        self, encode: Callable[[str], Tensor], network: str, folder: Path, device: torch.device
    ) -> None:
        self.encode, self.network, self.store, self.device = encode, network, TensorStore(folder), device

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """[n, t, width] float32."""
        return torch.stack([self._embedding(caption) for caption in captions]).to(self.device)

    def _embedding(self, caption: str) -> Tensor:
        return self.store.find(_key(caption, self.network), lambda: self.encode(caption))


def _key(*what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:DIGITS]


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data):08x}"
