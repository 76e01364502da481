"""Where to compute and how exactly, on machines of every kind, played by the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdscratch.device import TRIED, choose, out_of_memory_explained
from sdscratch.errors import DeviceError, UsageError

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets what torch finds; a bare CPU at first."""

    def play(
        *, gpus: int = 0, capability: tuple[int, int] = (8, 0), mps: bool = False, **features: bool
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512": True, **features})

    play()
    return play


def test_a_cpu_without_16_bit_arithmetic_computes_in_float32(machine: Machine) -> None:
    placement = choose()
    assert (placement.device.type, placement.dtype_name, placement.batches) == ("cpu", "float32", False)
    assert placement.reason == "cpu (no GPU found), float32 (the processor has no bfloat16 arithmetic)"


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_bfloat16_arithmetic_uses_it(feature: str, machine: Machine) -> None:
    machine(**{feature: True})
    assert choose().dtype is torch.bfloat16
    assert choose().reason.endswith(f"bfloat16 (the processor has {feature.upper()})")
    machine(**{feature: False})
    assert choose().dtype is torch.float32


def test_a_gpu_comes_before_the_cpu(machine: Machine) -> None:
    machine(gpus=2, mps=True)
    placement = choose()
    assert (placement.device.type, placement.dtype, placement.batches) == ("cuda", torch.bfloat16, True)
    assert placement.reason == "cuda (Some GPU), bfloat16 (tensor cores, and the range of float32)"


def test_an_old_gpu_computes_in_float16(machine: Machine) -> None:
    machine(gpus=1, capability=(7, 5))
    assert choose("cuda:0").dtype is torch.float16


def test_an_apple_gpu_is_found(machine: Machine) -> None:
    machine(mps=True)
    assert (choose().device.type, choose().dtype) == ("mps", torch.float16)


def test_what_is_asked_for_is_done(machine: Machine) -> None:
    machine(gpus=2, avx512_bf16=True)
    placement = choose("cpu", "float32")
    assert placement.reason == "cpu (asked for), float32 (asked for)"
    assert choose("cuda:1", "float16").device == torch.device("cuda", 1)
    for name in ("float32", "bfloat16", "float16"):
        assert choose("cpu", name).dtype_name == name


@pytest.mark.parametrize("feature", ["avx512_vnni", "amx_int8", "avx_vnni"])
def test_int8_is_done_by_a_processor_that_has_it(feature: str, machine: Machine) -> None:
    machine(**{feature: True, "avx512_bf16": True})
    placement = choose("cpu", "int8")
    assert (placement.dtype_name, placement.dtype, placement.integers) == ("int8", torch.bfloat16, True)
    assert "int8 (asked for; all else in bfloat16: the processor has AVX512_BF16)" in placement.reason
    machine(**{feature: True})
    assert choose("cpu", "int8").dtype is torch.float32  # the faster one there
    assert not choose().integers  # never unasked


def test_elsewhere_int8_is_16_bits_and_that_is_said(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = choose("cpu", "int8")
    assert (placement.dtype_name, placement.dtype) == ("bfloat16", torch.bfloat16)
    assert "VNNI or AMX, and this one has neither; bfloat16 is taken" in caplog.text
    machine(gpus=1)
    assert choose("cuda", "int8").dtype_name == "bfloat16"
    assert "and not for cuda; bfloat16 is taken" in caplog.text
    monkeypatch.setenv(TRIED, "1")
    assert not choose("cuda", "int8").integers
    assert choose("cpu", "int8").integers


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [
        ("cuda", 0, "cuda was asked for, but there is no CUDA device here; use --device auto or cpu"),
        ("cuda:1", 1, "cuda:1 was asked for, but there is 1 CUDA device here"),
        ("cuda:2", 2, "cuda:2 was asked for, but there are 2 CUDA devices here"),
        ("mps", 0, "mps was asked for, but there is no Apple GPU here"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(device: str, gpus: int, said: str, machine: Machine) -> None:
    machine(gpus=gpus)
    with pytest.raises(DeviceError) as caught:
        choose(device)
    assert said in str(caught.value)


def test_names_that_mean_nothing_are_wrong_usage(machine: Machine) -> None:
    for device, dtype in (("gpu", "auto"), ("auto", "fp16"), ("cuda:999", "auto")):
        with pytest.raises(UsageError):
            choose(device, dtype)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=str,
)
def test_out_of_memory_is_one_error_on_every_device(error: Exception) -> None:
    with (
        pytest.raises(DeviceError, match="out of memory; ask for a smaller picture"),
        out_of_memory_explained(),
    ):
        raise error


def test_the_cpus_own_words_for_out_of_memory_are_known() -> None:
    with pytest.raises(DeviceError), out_of_memory_explained():
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory_explained():
        raise RuntimeError("shapes differ")
