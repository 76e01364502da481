"""What every test runs under, and the model that many of them draw with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sdscratch.__main__ import yield_sooner

yield_sooner(os.environ)  # pytest's workers share the processor, too

# no time limit for an example: machines that are busy with other things would fail tests that hold
settings.register_profile("sdscratch", deadline=None)
settings.load_profile("sdscratch")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's folders, or asks the hub anything."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable)))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-contained file of random weights that draws 64×64 pixels in a moment."""
    from support.checkpoints import ldm_tensors, self_contained, write_ldm

    return write_ldm(tmp_path_factory.mktemp("model") / "tiny.safetensors", ldm_tensors(), self_contained())
