"""Computations recorded once and played back: CUDA graphs.

A step of one picture is some two thousand small operations, and a GPU waits for Python between them. A CUDA
graph is all of them as one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from sdscratch.fast.compute import Compute, Input, Inputs, Outputs, first_line
from sdscratch.models.conditioning import Conditioning

__all__ = ["Recorded", "Recorder", "cuda_recorder"]

log = logging.getLogger(__name__)

# records a computation; gives what plays it back, and the tensors that then hold what it computes
Recorder = Callable[[Callable[[], Outputs]], tuple[Callable[[], object], Outputs]]

WARM_UP = 3  # runs before a recording: kernels are chosen and workspaces made in them


class Recorded:
    """A computation that is recorded at the first call of each shape, and then played back."""

    def __init__(self, compute: Compute, record: Recorder) -> None:
        self.compute = compute
        self.record = record
        self._recordings: dict[Hashable, Recording | None] = {}

    def __call__(self, *inputs: Input) -> Outputs:
        """Compute; the results are the caller's own."""
        kind = kind_of(inputs)
        if kind not in self._recordings:
            self._recordings[kind] = self._try_to_record(inputs)
        recording = self._recordings[kind]
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


def kind_of(inputs: Inputs) -> Hashable:
    """What two calls have in common where one recording serves both: shapes, precisions, and controls."""
    shapes = tuple(None if x is None else (x.shape, x.dtype) for x in tensors_of(inputs))
    return shapes, tuple(given.kind for given in inputs if isinstance(given, Conditioning))


def tensors_of(inputs: Inputs) -> Iterator[Tensor | None]:
    """All tensors of a computation's inputs, those of a conditioning and its controls one by one."""
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
