"""The U-Net as a GPU likes it: recorded once, played back at every step; compiled where asked for.

A step of one picture is some two thousand small operations, and a GPU waits for Python between them. A CUDA
graph is all of them as one. Every way here computes the same network; where one cannot be had, the next
slower one is taken, and the log says why.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdscratch.device import Placement
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import UNetConfig

__all__ = ["Compute", "Recorded", "Recorder", "accelerate"]

log = logging.getLogger(__name__)

Input = Tensor | Conditioning | None
Inputs = tuple[Input, ...]
Outputs = tuple[Tensor, ...]
Compute = Callable[..., Outputs]
# records a computation; gives what plays it back, and the tensors that then hold what it computes
Recorder = Callable[[Callable[[], Outputs]], tuple[Callable[[], object], Outputs]]

WARM_UP = 3  # runs before a recording: kernels are chosen and workspaces made in them


def accelerate(compute: Compute, placement: Placement, config: UNetConfig) -> Compute:
    """The U-Net's computation in the fastest way that this placement has; on a CPU that is itself.

    Args:
        compute: the latent [n, c, h, w], and what else the network takes → what it gives.
        placement: where, and whether it may be compiled.
        config: tells the shapes of attention.
    """
    if placement.compiled:
        compute = compiled(compute)
    if placement.device.type != "cuda":
        return compute

    def attentive(x: Tensor, *others: Input) -> Outputs:
        shape = attention_shape(config, x.shape)
        with sdpa_kernel(
            list(fastest_attention(placement.device, placement.dtype, shape)), set_priority=True
        ):
            return compute(x, *others)

    return Recorded(attentive, cuda_recorder(placement.device))


class Recorded:
    """A computation that is recorded at the first call of each shape, and then played back."""

    def __init__(self, compute: Compute, record: Recorder) -> None:
        self.compute = compute
        self.record = record
        self._recordings: dict[object, Recording | None] = {}

    def __call__(self, *inputs: Input) -> Outputs:
        """Compute; the results are the caller's own."""
        shapes = tuple(None if x is None else (x.shape, x.dtype) for x in tensors_of(inputs))
        if shapes not in self._recordings:
            self._recordings[shapes] = self._try_to_record(inputs)
        recording = self._recordings[shapes]
        return self.compute(*inputs) if recording is None else recording(*inputs)

    def _try_to_record(self, inputs: Inputs) -> Recording | None:
        try:
            return Recording(self.compute, inputs, self.record)
        except RuntimeError as error:
            log.info("no CUDA graph, so every operation is launched by itself: %s", first_line(error))
            return None


class Recording:
    """One computation on tensors that stay where they are; inputs are copied into them, results out."""

    def __init__(self, compute: Compute, inputs: Inputs, record: Recorder) -> None:
        self.inputs = tuple(own_copy(x) for x in inputs)
        self.play, self.outputs = record(lambda: compute(*self.inputs))

    def __call__(self, *inputs: Input) -> Outputs:
        """Play it back."""
        for held, given in zip(tensors_of(self.inputs), tensors_of(inputs), strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        self.play()
        return tuple(output.clone() for output in self.outputs)  # the next playing overwrites them


def tensors_of(inputs: Inputs) -> Iterator[Tensor | None]:
    """All tensors of a computation's inputs, those of a conditioning one by one."""
    for given in inputs:
        if isinstance(given, Conditioning):
            yield from given.tensors()
        else:
            yield given


def own_copy(given: Input) -> Input:
    """A copy that stays where it is."""
    return None if given is None else given.clone()


def cuda_recorder(device: torch.device) -> Recorder:
    """Records a computation as a CUDA graph of this device.

    The recorder raises RuntimeError where something cannot be recorded: a copy to the CPU, too little memory.
    """

    def record(compute: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # nothing may be recorded on the default stream
                for _ in range(WARM_UP):
                    compute()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = compute()
        return graph.replay, outputs

    return record


def compiled(compute: Compute) -> Compute:
    """The computation compiled by torch (a minute at its first call), or as it is where that fails."""
    fast: Compute = torch.compile(compute, dynamic=False)
    works: bool | None = None

    def run(*inputs: Input) -> Outputs:
        nonlocal works
        if works is False:
            return compute(*inputs)
        try:
            result = fast(*inputs)
        except Exception as error:  # compilers fail in many ways, of which none should cost a picture
            if works:
                raise
            log.warning("the U-Net could not be compiled, and runs as it is: %s", first_line(error))
            works = False
            return compute(*inputs)
        works = True
        return result

    return run


# Attention

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
MARGIN = 1.2  # times slower than the fastest still counts as equally fast


def attention_shape(config: UNetConfig, latent: Sequence[int]) -> tuple[int, int, int, int]:
    """Of the largest self-attention: pictures, heads, positions, width of a head."""
    n, _, height, width = latent
    level = config.attends.index(True) if True in config.attends else len(config.attends) - 1
    positions = -(-height // 2**level) * -(-width // 2**level)  # sides are rounded up on the way down
    return n, config.heads, positions, config.channels * config.multipliers[level] // config.heads


@cache
def fastest_attention(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]
) -> tuple[SDPBackend, ...]:
    """The backends in the order in which they are to be tried, by measuring them once (milliseconds)."""
    times = attention_times(device, dtype, shape)
    told = ", ".join(f"{backend.name.lower()} {seconds * 1e3:.2f} ms" for backend, seconds in times.items())
    log.info("attention of %s: %s", "×".join(map(str, shape)), told)
    return in_order(times)


def in_order(times: Mapping[SDPBackend, float]) -> tuple[SDPBackend, ...]:
    """The fastest backend first, then the others: what refused this shape may be what another one needs.

    Of those that are about as fast, the first of `BACKENDS`: chance must not decide, or a picture's last bits
    would differ from one day to the next.
    """
    good = MARGIN * min(times.values(), default=0.0)
    best = [backend for backend in BACKENDS if times.get(backend, math.inf) <= good][:1]
    return (*best, *(backend for backend in BACKENDS if backend not in best))


def attention_times(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], repeats: int = 10
) -> Mapping[SDPBackend, float]:
    """Seconds of self-attention by backend; those that refuse are left out."""
    q = torch.zeros(shape, device=device, dtype=dtype)
    times: dict[SDPBackend, float] = {}
    for backend in BACKENDS:
        try:
            with sdpa_kernel(backend), torch.inference_mode():
                F.scaled_dot_product_attention(q, q, q)
                wait(device)
                start = time.perf_counter()
                for _ in range(repeats):
                    F.scaled_dot_product_attention(q, q, q)
                wait(device)
                times[backend] = (time.perf_counter() - start) / repeats
        except RuntimeError:  # no kernel for this shape, precision or GPU
            continue
    return times


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def wait(device: torch.device) -> None:
    """Until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
