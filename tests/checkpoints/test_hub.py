"""The hub, played by a server on loopback: what is fetched, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError, TokenizerError
from support.checkpoints import TINY, ldm_tensors, self_contained, tiny_tokenizer, write_diffusers, write_ldm
from support.hub import Hub, playing_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:huggingface_hub")

CLIP = "openai/clip-vit-large-patch14"
CLIP_FILES = {"vocab.json", "merges.txt"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    """Start a hub that everything asks from now on, with an empty cache."""
    from huggingface_hub import constants

    stack = []

    def start(repositories: dict[str, dict[str, bytes]], gated: set[str] | None = None) -> Hub:
        context = playing_hub(repositories, gated)
        hub = context.__enter__()
        stack.append(context)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        return hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.chdir(tmp_path)
    yield start
    for context in stack:
        context.__exit__(None, None, None)


def assert_is_tiny(name: str) -> None:
    model = open_model(name)
    weight = weights(TINY)[0]
    assert model.config == TINY
    assert torch.equal(model.read(weight), ldm_tensors()[weight.ldm])
    assert model.tokenizer.to_json() == tiny_tokenizer().to_json()


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, bytes]:
    """A repository as people publish them: far more than a picture needs."""
    written = write_diffusers(tmp_path / "made", TINY, tokenizer=tiny_tokenizer())
    files = files_of(written)
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        files |= {
            f"{name}.bin": b"no",
            f"{name}.fp16.safetensors": b"no",
            f"{name}.non_ema.safetensors": b"no",
        }
    return files | {
        "README.md": b"# A model",
        "model.safetensors": b"no",
        "safety_checker/model.safetensors": b"no",
        "text_encoder/pytorch_model.bin": b"no",
    }


def test_of_a_folder_only_what_a_picture_needs_is_fetched(
    serve: Callable[..., Hub], folder: dict[str, bytes]
) -> None:
    hub = serve({"someone/some-model": folder})
    assert_is_tiny("someone/some-model")
    unneeded = {name for name, data in folder.items() if data == b"no"} | {"README.md"}
    assert hub.fetched == set(folder) - unneeded


def test_shards_are_fetched_with_their_index(serve: Callable[..., Hub], tmp_path: Path) -> None:
    files = files_of(write_diffusers(tmp_path / "sharded", TINY, shards=3, tokenizer=tiny_tokenizer()))
    hub = serve({"someone/sharded": files})
    assert_is_tiny("someone/sharded")
    assert sum("-of-00003" in name for name in hub.fetched) == 3


def test_a_repository_of_one_file_gives_the_file(serve: Callable[..., Hub], tmp_path: Path) -> None:
    path = write_ldm(tmp_path / "x.safetensors", ldm_tensors(), self_contained())
    hub = serve(
        {"someone/single": {"model.safetensors": path.read_bytes(), "README.md": b"", "pictures/a.png": b""}}
    )
    assert_is_tiny("someone/single")
    assert hub.fetched == {"model.safetensors"}


def test_what_was_fetched_works_when_the_hub_is_gone(
    serve: Callable[..., Hub], folder: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve({"someone/some-model": folder})
    assert_is_tiny("someone/some-model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert_is_tiny("someone/some-model")


REFUSALS = {
    "nobody/nothing": "the hub has none of that name, or it is private",
    "someone/gated": "accept its licence on the hub's page",
    "someone/several": r"holds several models \(a\.ckpt, b\.ckpt, …\)",
    "someone/empty": "holds no Stable Diffusion model",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_fetched_is_said_in_one_sentence(serve: Callable[..., Hub], name: str) -> None:
    several = {"a.ckpt": b"", "b.ckpt": b""}
    serve(
        {"someone/gated": {}, "someone/several": several, "someone/empty": {"README.md": b""}},
        {"someone/gated"},
    )
    with pytest.raises(CheckpointError, match=REFUSALS[name]) as caught:
        open_model(name)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_said_in_one_sentence(serve: Callable[..., Hub]) -> None:
    with pytest.raises(
        CheckpointError, match="there is no model someone/x here, and the hub cannot be reached"
    ) as caught:
        open_model("someone/x")
    assert "\n" not in str(caught.value)


def test_a_local_model_is_opened_without_asking_the_hub(serve: Callable[..., Hub], tmp_path: Path) -> None:
    hub = serve({})
    (tmp_path / "someone").mkdir()
    write_ldm(tmp_path / "someone" / "model", ldm_tensors(), self_contained())
    assert_is_tiny("someone/model")
    assert hub.requests == []


# CLIP's tokenizer


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without a tokenizer whose text encoder, one would think, is CLIP's."""
    monkeypatch.setattr("sdscratch.checkpoints.tokenizers.CLIP_VOCABULARY", TINY.text.vocabulary)
    return write_ldm(tmp_path / "bare.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})


def test_clips_tokenizer_is_fetched_once(
    serve: Callable[..., Hub], bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve({CLIP: {name: text.encode() for name, text in tiny_tokenizer().to_files().items()}})
    assert open_model(bare).tokenizer.to_json() == tiny_tokenizer().to_json()
    assert hub.fetched == CLIP_FILES
    hub.requests.clear()
    assert open_model(bare).tokenizer.to_json() == tiny_tokenizer().to_json()
    assert hub.requests == []


def test_offline_the_error_says_which_two_files_to_get_and_where_to_put_them(
    serve: Callable[..., Hub], bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(TokenizerError) as caught:
        _ = open_model(bare).tokenizer
    message = str(caught.value)
    for part in (
        "vocab.json and merges.txt",
        CLIP,
        str(tmp_path / "data/sdscratch/tokenizer"),
        "--tokenizer",
    ):
        assert part in message
    assert "\n" not in message
