"""A device that stands in for a GPU: tensors without numbers, and a mode that sees every operator.

Meta tensors are "the GPU", and CPU tensors are the CPU's. `standing_in("cuda")` has the project treat the
meta device as that kind, and fails, naming file and line of the project, on whatever a GPU would refuse, or
would have to be waited for:

* an operator with tensors on both sides, 0-dimensional ones on the CPU aside, as PyTorch has it;
* a copy to the CPU, `.item()`, a branch on a tensor, `.tolist()`, `.numpy()`: anything that waits;
* a generator of the CPU for numbers on the device, or none at all: a seed would not tell the picture;
* a type that the device lacks (float64 and complex128 on Apple's GPUs);
* while a computation is recorded: a copy between the sides in any direction, a random number, a look at how
  much memory there is, or other operators than the last time.

Where data change sides for a good reason, the function stands in `CROSSINGS`, with that reason.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sdscratch
from sdscratch.device import Placement
from sdscratch.fast import accelerate, backends
from sdscratch.fast.compute import Outputs
from sdscratch.hardware import STANDS_FOR

__all__ = ["CROSSINGS", "GPU", "Crossing", "Forbidden", "StandIn", "placement", "standing_in"]

GPU = torch.device("meta")
PACKAGE = Path(sdscratch.__file__).parent
MEMORY = 80 * 2**30

LACKING = {"cuda": frozenset[torch.dtype](), "mps": frozenset({torch.float64, torch.complex128})}


class Forbidden(AssertionError):
    """What a GPU would refuse or wait for; says what, and on which line of the project."""


@dataclass(frozen=True)
class Crossing:
    """A function in which data may come from the device, and why; `answer` is what a number then is."""

    reason: str
    answer: float | bool | None = None  # None: no single number is asked for here


# Functions of the project, by file and name, that read what is on the device.
CROSSINGS: dict[tuple[str, str], Crossing] = {
    ("images/tensors.py", "to_picture"): Crossing("a picture is done, or previewed: its pixels go to a file"),
    ("generation/enlarge.py", "_run"): Crossing("an enlarged band is done: its pixels go to the CPU", True),
    ("generation/networks.py", "run"): Crossing(
        "text, encoder, decoder, each once: no NaN is passed on", True
    ),
    ("generation/sampling.py", "steps"): Crossing("NaN is looked for at the first and the last step", True),
    ("generation/preview.py", "fit_preview"): Crossing("a map is fitted on the CPU, once for a model"),
    ("diffusion/samplers/dpm_solver.py", "dpm_adaptive"): Crossing(
        "its next step is as long as x allows", 1.0
    ),
    ("training/engine/metrics.py", "flush"): Crossing("metrics are written, once a second at most"),
    ("training/engine/state.py", "read"): Crossing("a checkpoint is written"),
    ("training/tasks/autoencoder.py", "held_out_psnr"): Crossing("one number, at the end of a run", 20.0),
    ("fast/bands.py", "of_groups"): Crossing("a layer's statistics are summed up in float64, once a layer"),
}

RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
        *("normal_", "uniform_", "bernoulli", "bernoulli_", "multinomial", "random_", "exponential_"),
        *("normal", "native_dropout", "dropout"),
    }
)
READS = frozenset({"_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2"})
COPIES = frozenset({"_to_copy", "copy_", "copy"})


@dataclass
class StandIn(TorchDispatchMode):
    """The mode, and what it has seen.

    Attributes:
        reads: how often each crossing was made.
        seen: the operators on the device, by name.
        log: while something is recorded, the operators with their shapes, in order.
    """

    kind: str
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    uploads: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    log: list[tuple[object, ...]] | None = None
    capturing: bool = False
    recordings: int = 0
    playings: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.generators: dict[int, torch.Generator] = {}  # the device's own, by address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = list(_tensors_in((*args, *kwargs.values())))
        on_device = [tensor for tensor in tensors if tensor.is_meta]
        wanted = kwargs.get("device")
        to_device = wanted is not None and torch.device(wanted).type == "meta"
        if torch.is_inference_mode_enabled() and name not in COPIES:
            with self:  # what is made of others is seen part by part, as outside of inference
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if not on_device and not to_device:
            return func(*args, **kwargs)
        if name in COPIES:
            return self._copied(func, name, args, kwargs)
        if name in READS or (name == "index" and _by_mask(args)):
            return self._read(name)
        beside = [tensor for tensor in tensors if not tensor.is_meta and tensor.dim()]
        if on_device and beside:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in beside)
            self._forbid(f"{func} has tensors on both sides: {shapes} on the CPU")
        if name in RANDOM and not self._draws_nothing(name, args, kwargs):
            self._check_generator(func, kwargs)
        if on_device:
            self.seen[name] += 1
        result = func(*args, **kwargs)
        self._check_types(func, [*on_device, *_tensors_in((result,))])
        if self.log is not None:
            shapes_in = tuple((tuple(x.shape), x.dtype) for x in on_device)
            self.log.append((str(func), shapes_in, _numbers(args)))
        return result

    def _copied(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A copy: on the device, onto it, or from it."""
        if name == "_to_copy":
            source = args[0]
            wanted = kwargs.get("device")
            lands = source.is_meta if wanted is None else torch.device(wanted).type == "meta"
        else:
            lands, source = args[0].is_meta, args[1]
        if lands and not source.is_meta:
            if source.dim():
                self._uploaded(f"{func} from the CPU")
        elif source.is_meta and not lands:
            if kwargs.get("dtype", source.dtype) in LACKING[self.kind]:
                self._forbid(f"{func} converts to {kwargs['dtype']}, which {self.kind} lacks, on its way")
            self._crossed(f"{func} copies to the CPU")
            made = torch.Generator().manual_seed(0)
            with _without_mode():
                numbers = torch.randn(source.shape, generator=made)
                if name == "_to_copy":
                    return numbers.to(kwargs.get("dtype") or source.dtype)
                return args[0].copy_(numbers)
        result = func(*args, **kwargs)
        if lands:
            self._check_types(func, [result, *([source] if source.is_meta else [])])
            if self.log is not None:
                self.log.append((str(func), tuple(source.shape), result.dtype))
        return result

    def _read(self, name: str) -> Any:
        crossing = self._crossed(f"{name} waits for the device")
        if crossing.answer is None:
            self._forbid(f"{name}: a number is read where none is expected")
        return crossing.answer

    def _crossed(self, what: str) -> Crossing:
        if self.capturing:
            self._forbid(f"{what} while a computation is recorded")
        for frame in _project_frames():
            place = _place(frame)
            if place in CROSSINGS:
                self.reads[place] += 1
                return CROSSINGS[place]
            break
        self._forbid(what)
        raise AssertionError

    def _uploaded(self, what: str) -> None:
        if self.capturing:
            self._forbid(f"{what} while a computation is recorded")
        frame = next(_project_frames(), None)
        if frame is not None:
            self.uploads[_place(frame)] += 1

    def _check_types(self, func: Any, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.is_meta and tensor.dtype in LACKING[self.kind]:
                self._forbid(f"{func} has {tensor.dtype}, which {self.kind} lacks")

    def _draws_nothing(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name not in ("native_dropout", "dropout"):
            return False
        return not args[-1] or args[1] == 0.0  # not training, or nothing is left out

    def _check_generator(self, func: Any, kwargs: dict[str, Any]) -> None:
        if self.capturing:
            self._forbid(f"{func} draws while a computation is recorded")
        generator = kwargs.get("generator")
        if generator is None:
            self._forbid(f"{func} draws on the device without a generator")
        elif generator._cdata not in self.generators:
            self._forbid(f"{func} draws on the device by a generator of the CPU")

    def _forbid(self, what: str) -> None:
        raise Forbidden(f"{_where([(frame, frame.f_lineno) for frame in _project_frames()])}: {what}")

    # What is asked for in other ways than by operators

    def made_of_numbers(self, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.tensor` and its kin: numbers of Python's that go to the device."""

        def made(*args: Any, **kwargs: Any) -> Tensor:
            result = make(*args, **kwargs)
            if isinstance(result, Tensor) and result.is_meta:
                self._uploaded("numbers of Python's go to the device")
                self._check_types(make.__name__, [result])
            return result

        return made

    def taken(self, tensor: Tensor) -> Tensor:
        """What `Tensor.numpy`, `.tolist` and the like take of a tensor on the device."""
        self._crossed("numbers are taken from the device")
        with _without_mode():
            return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor.dtype)

    def memory(self, *args: Any, **kwargs: Any) -> Any:
        """How much memory there is, which no recorded computation may depend on."""
        if self.capturing:
            self._forbid("memory is asked for while a computation is recorded")
        return SimpleNamespace(total_memory=MEMORY)

    def recorder(self, device: torch.device) -> Callable[..., tuple[Callable[[], object], Outputs]]:
        """In the place of `cuda_recorder`: a computation is run, and held to the rules of a capture."""
        assert device == GPU

        def record(compute: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
            self.recordings += 1
            compute()
            runs = []
            for self.capturing in (False, True):
                self.log = []
                try:
                    outputs = compute()
                finally:
                    runs.append(self.log)
                    self.log, self.capturing = None, False
            if runs[0] != runs[1]:
                pair = next((a, b) for a, b in zip([*runs[0], None], [*runs[1], None]) if a != b)  # noqa: B905
                self._forbid(f"what is recorded is not what ran before: {pair[1]} for {pair[0]}")

            def play() -> None:
                self.playings += 1

            return play, outputs

        return record


def generators_of(mode: StandIn) -> type[torch.Generator]:
    """`torch.Generator`, of which there are also the device's."""

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Generator:
            on_device = torch.device(device).type == "meta"
            made = super().__new__(cls, torch.device("cpu") if on_device else device)
            made.on_device = on_device
            if on_device:
                mode.generators[made._cdata] = made  # held, so that no other is at its address
            return made

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return GPU if self.on_device else super().device

    return Generator


def placement(dtype: torch.dtype = torch.float32) -> Placement:
    """The device, as a pipeline takes it."""
    return Placement(GPU, dtype, "a stand-in")


@contextmanager
def standing_in(kind: str) -> Iterator[StandIn]:
    """Within, the meta device is a GPU of this kind, and whatever it would refuse fails."""
    mode = StandIn(kind)
    backends.fastest_attention.cache_clear()
    with ExitStack() as stack:
        for target, name, new in (
            (accelerate, "cuda_recorder", mode.recorder),
            (backends, "wait", lambda device: None),
            (torch, "Generator", generators_of(mode)),
            (torch, "tensor", mode.made_of_numbers(torch.tensor)),
            (torch, "as_tensor", mode.made_of_numbers(torch.as_tensor)),
            (torch.cuda, "get_device_properties", mode.memory),
            (torch.cuda, "mem_get_info", mode.memory),
            (torch.cuda, "memory_allocated", mode.memory),
            (torch.cuda, "empty_cache", mode.memory),
            (torch.mps, "empty_cache", mode.memory),
            (optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu", "cuda", "mps"]),
            # the same without numbers, and operators come in the parts that a kernel is for
            (torch, "inference_mode", torch.no_grad),
            (Tensor, "pin_memory", lambda tensor, device=None: tensor),
        ):
            stack.enter_context(mock.patch.object(target, name, new))
        for name in ("numpy", "tolist", "__array__"):
            stack.enter_context(mock.patch.object(Tensor, name, _unless_on_device(mode, name)))
        stack.enter_context(mock.patch.dict(STANDS_FOR, {"meta": kind}))
        stack.enter_context(mode)
        try:
            yield mode
        except (RuntimeError, TypeError) as error:  # what PyTorch refuses before any operator is reached
            if "meta" not in str(error):
                raise
            raise Forbidden(f"{_where(_frames_of(error))}: {error}") from error
    backends.fastest_attention.cache_clear()


def _unless_on_device(mode: StandIn, name: str) -> Callable[..., Any]:
    own = getattr(Tensor, name)

    def taken(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return own(mode.taken(tensor) if tensor.is_meta else tensor, *args, **kwargs)

    return taken


@contextmanager
def _without_mode() -> Iterator[None]:
    with torch.utils._python_dispatch._disable_current_modes():
        yield


def _by_mask(args: tuple[Any, ...]) -> bool:
    """Whether something is indexed by a mask on the device: how much it is, only the device knows."""
    return any(isinstance(x, Tensor) and x.is_meta and x.dtype == torch.bool for x in args[1])


def _numbers(args: tuple[Any, ...]) -> tuple[object, ...]:
    return tuple(leaf for leaf in tree_leaves(args) if isinstance(leaf, (int, float, bool)))


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, in lists of them, too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _project_frames() -> Iterator[FrameType]:
    """The project's frames, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_ours(frame):
            yield frame
        frame = frame.f_back


def _frames_of(error: BaseException) -> list[tuple[FrameType, int]]:
    """The project's frames in which an error was raised, the innermost first."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_ours(frame)]
    return frames[::-1]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}")


def _where(frames: list[tuple[FrameType, int]]) -> str:
    """The innermost lines in words."""
    said = (f"{_file(frame)}:{line} in {frame.f_code.co_name}" for frame, line in frames[:3])
    return "; called from ".join(said) or "outside the project"


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(f"{PACKAGE}{os.sep}").replace(os.sep, "/")


def _place(frame: FrameType) -> tuple[str, str]:
    return _file(frame), frame.f_code.co_name
