"""From training to a file that everything else reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from sdscratch.checkpoints.model import open_model
from sdscratch.diffusion.schedule import Schedule
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.pipeline import load
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.folder import begin
from sdscratch.pictograms.grow import grow_diffusion
from sdscratch.text.cutting import plain_row
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.tasks.autoencoder import Autoencoder
from sdscratch.training.tasks.diffusion import Diffusion
from support.sprites import disc_table


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(disc_table(), size=64)


@pytest.fixture(scope="module")
def tokenizer(composer: Composer) -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "CAPTIONS_READ", 500)
        learnt = embedded.learn_tokenizer(composer)
        assert learnt.to_json() == embedded.learn_tokenizer(composer).to_json()
    return learnt


def test_a_model_written_is_the_model_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = embedded.model_config(tokenizer)
    autoencoder, diffusion = Autoencoder(config.autoencoder), Diffusion.from_config(config)
    path = tmp_path / "model.safetensors"
    embedded.save_embedded(path, embedded.LARGE, autoencoder, diffusion, tokenizer, {"steps": 3})

    files = open_model(path)
    assert files.config == config
    assert files.defaults == embedded.LARGE.defaults
    assert files.tokenizer.to_json() == tokenizer.to_json()
    for part, module in (
        ("text", diffusion.text),
        ("unet", diffusion.unet),
        ("encoder", autoencoder.encoder),
        ("decoder", autoencoder.decoder),
    ):
        loaded = files.load(part, "cpu", torch.float32).state_dict()
        assert_close(loaded, {name: value.half().float() for name, value in module.state_dict().items()})
    picture = load(str(path)).txt2img("a red disc", seed=0, steps=2)
    assert picture.size == (embedded.LARGE.size, embedded.LARGE.size)


def test_the_model_fits_into_forty_megabytes() -> None:
    # as large a vocabulary as its tokenizer may have
    tokenizer = Tokenizer.from_merges([], length=embedded.PROMPT_LENGTH)
    with torch.device("meta"):
        modules = (
            Diffusion.from_config(embedded.model_config(tokenizer)),
            Autoencoder(embedded.LARGE.autoencoder),
        )
    weights = sum(p.numel() for module in modules for p in module.parameters())
    text_width = embedded.model_config(tokenizer).text.width
    assert 2 * (weights + embedded.MERGES * text_width) < 40e6 - 100e3  # 100 kB of header


def test_its_schedule_ends_in_noise_alone(tokenizer: Tokenizer) -> None:
    config = embedded.model_config(tokenizer)
    assert Schedule(config.schedule).alphas_bar[-1] < 1.1e-4


def test_its_tokenizer_knows_captions_words_and_takes_any_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("A BLUE background").pieces[1:-1] == ("a</w>", "blue</w>", "background</w>")
    assert tokenizer.size <= 512 + embedded.MERGES + 2
    for text in ("", "naïve 寿司 🐙", "x" * 500):
        ids = plain_row(tokenizer, text)
        assert len(ids) == tokenizer.length
        assert max(ids) < tokenizer.size


def test_a_run_keeps_the_tokenizer_that_it_began_with(
    composer: Composer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "tokenizer.json"
    with pytest.raises(SdscratchError, match="train text encoder and U-Net first"):
        embedded.load_tokenizer(path)
    monkeypatch.setattr(embedded, "learn_tokenizer", lambda composer: tokenizer)
    assert embedded.keep_tokenizer(path, composer).to_json() == tokenizer.to_json()
    monkeypatch.setattr(embedded, "learn_tokenizer", lambda composer: pytest.fail("learnt again"))
    assert embedded.keep_tokenizer(path, composer).to_json() == tokenizer.to_json()


def test_an_autoencoder_is_kept_with_its_figures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder(embedded.LARGE.autoencoder)
    embedded.save_autoencoder(tmp_path / "ae.safetensors", model, {"psnr": 29.5})
    loaded, figures = embedded.load_autoencoder(tmp_path / "ae.safetensors")
    assert figures == {"psnr": 29.5}
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(SdscratchError, match="train the autoencoder first"):
        embedded.load_autoencoder(tmp_path / "none.safetensors")


def test_a_run_begins_from_the_embedded_model_itself(tmp_path: Path) -> None:
    path = Path(open_model("default").path)
    begin(tmp_path, embedded.LARGE, path)
    trained, diffusion, tokenizer = embedded.open_trained(path)
    kept, _ = embedded.load_autoencoder(tmp_path / "autoencoder.safetensors")
    for name, weight in trained.state_dict().items():
        assert torch.equal(kept.state_dict()[name], weight), name
    words = embedded.load_tokenizer(tmp_path / "diffusion" / "tokenizer.json")
    assert words.to_json() == tokenizer.to_json()
    further = Diffusion.from_config(embedded.model_config(words))
    grow_diffusion(diffusion, further, tokenizer, words)
    for name, weight in diffusion.state_dict().items():
        assert torch.equal(further.state_dict()[name], weight), name


def test_a_run_begins_in_a_folder_of_its_own_and_from_a_model_of_its_size(tmp_path: Path) -> None:
    path = Path(open_model("default").path)
    with pytest.raises(UsageError, match="say another --size"):
        begin(tmp_path, embedded.SMALL, path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "autoencoder.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already"):
        begin(tmp_path, embedded.LARGE, path)
    assert (tmp_path / "autoencoder.safetensors").read_bytes() == b"mine"
