"""Pictures as every tool writes them, read; what no tool wrote is named as nobody's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdscratch.images import Records, read_records
from sdscratch.images.metadata.dialects import READERS, records_in
from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts

WEB_UI = "a fox\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"
USER_COMMENT, SOFTWARE, MAKE, MODEL = 0x9286, 0x0131, 0x010F, 0x0110


def png(tmp_path: Path, **texts: str) -> Records:
    """What is read of a PNG with these texts."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name.replace("__", "-"), text)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    return read_records(tmp_path / "a.png")


def exif(path: Path, tags: dict[int, Any]) -> Records:
    """What is read of a JPEG or WebP with these tags."""
    data = Image.Exif()
    for tag, value in tags.items():
        if tag == USER_COMMENT:
            data.get_ifd(0x8769)[tag] = value
        else:
            data[tag] = value
    Image.new("RGB", (64, 64)).save(path, exif=data)
    return read_records(path)


def unicode(text: str) -> bytes:
    return b"UNICODE\0" + text.encode("utf-16-be")


def told(records: Records) -> tuple[str | None, str, str, dict[str, str]]:
    assert records.infotext is not None
    text = records.infotext
    return records.tool, text.prompt, text.negative_prompt, dict(text.parameters)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_web_uis_text_in_exif(tmp_path: Path, suffix: str) -> None:
    tool, prompt, negative, parameters = told(exif(tmp_path / f"a.{suffix}", {USER_COMMENT: unicode(WEB_UI)}))
    assert (tool, prompt, negative) == ("a1111", "a fox", "bad")
    assert parameters["Sampler"] == "Euler a"


@pytest.mark.parametrize(
    ("version", "tool"), [("v1.10.1", "a1111"), ("f2.0.1v1.10.1-previous-100-gdeadbeef", "forge")]
)
def test_forge_is_told_by_its_version(tmp_path: Path, version: str, tool: str) -> None:
    assert told(png(tmp_path, parameters=f"{WEB_UI}, Version: {version}"))[0] == tool


@pytest.mark.parametrize("text", [WEB_UI + "\n", WEB_UI.replace("\n", "\r\n") + "\r\n", "\n\n" + WEB_UI])
def test_line_ends_and_indents_lose_nothing(tmp_path: Path, text: str) -> None:
    assert told(png(tmp_path, parameters=text)) == told(png(tmp_path, parameters=WEB_UI))
    assert told(png(tmp_path, parameters=text.replace("\nN", "\n N"))) == told(
        png(tmp_path, parameters=WEB_UI)
    )


SDCPP = {
    "prompt": "a fox",
    "sample_params": {"steps": 20, "method": "euler_a"},
    "list": [1, {"a": "x, y: z"}],
}


@pytest.mark.parametrize("after", ["", ", Extra: 5", "\n"])
def test_stable_diffusion_cpp_s_json_is_read_whole(tmp_path: Path, after: str) -> None:
    text = f"{WEB_UI}, RNG: cuda, Version: stable-diffusion.cpp, SDCPP: {json.dumps(SDCPP)}{after}"
    tool, prompt, negative, parameters = told(png(tmp_path, parameters=text))
    assert (tool, prompt, negative, parameters["RNG"]) == ("sdcpp", "a fox", "bad", "cuda")
    assert json.loads(parameters["SDCPP"]) == SDCPP
    assert parameters.get("Extra") == ("5" if "Extra" in after else None)
    assert set(parameters) - {"Extra"} == {
        *("Steps", "Sampler", "CFG scale", "Seed", "Size", "RNG", "Version", "SDCPP")
    }


def test_stable_diffusion_cpp_s_utf_8_in_latin_1_text(tmp_path: Path) -> None:
    mangled = WEB_UI.replace("a fox", "лиса в лесу").encode().decode("latin-1")
    assert told(png(tmp_path, parameters=f"{mangled}, Version: stable-diffusion.cpp"))[:2] == (
        "sdcpp",
        "лиса в лесу",
    )


# ComfyUI


def graph(**changes: Any) -> dict[str, Any]:
    nodes: dict[str, Any] = {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
        "10": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "ink.safetensors", "strength_model": 0.7, "strength_clip": 0.7,
                "model": ["4", 0], "clip": ["4", 1],
            },
        },
        "11": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["11", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["11", 0]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 5, "steps": 20, "cfg": 7.5, "sampler_name": "euler", "scheduler": "karras",
                "denoise": 1, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    }  # fmt: skip
    return {**nodes, **changes}


COMFY = {
    "Steps": "20", "Sampler": "euler", "Schedule type": "karras", "CFG scale": "7.5", "Seed": "5",
    "Size": "512x768", "Model": "v1-5.safetensors", "Clip skip": "2", "Loras": "ink.safetensors: 0.7",
}  # fmt: skip


def test_comfyui_s_graph_is_walked_to_its_sampler(tmp_path: Path) -> None:
    found = told(png(tmp_path, prompt=json.dumps(graph()), workflow="{}"))
    assert found == ("comfyui", "a fox", "bad", COMFY)


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_comfyui_s_graph_in_exif(tmp_path: Path, suffix: str) -> None:
    tags = {MODEL: f"prompt:{json.dumps(graph())}", MAKE: "workflow:{}"}
    assert told(exif(tmp_path / f"a.{suffix}", tags)) == ("comfyui", "a fox", "bad", COMFY)


def test_of_two_passes_the_first_is_the_picture_s_and_the_other_is_told(tmp_path: Path) -> None:
    second = {**graph()["3"]["inputs"], "steps": 8, "denoise": 0.5, "seed": 6, "latent_image": ["20", 0]}
    more = {
        "20": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1024, "height": 1536}},
        "21": {"class_type": "KSampler", "inputs": second},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["21", 0], "vae": ["4", 2]}},
    }
    *_, parameters = told(png(tmp_path, prompt=json.dumps(graph(**more))))
    assert {key: parameters[key] for key in COMFY} == COMFY
    assert "Steps: 8" in parameters["Pass 2"]
    assert "Denoising strength: 0.5" in parameters["Pass 2"]


def test_custom_sampling_is_gathered_from_its_nodes(tmp_path: Path) -> None:
    more = {
        "3": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["30", 0], "guider": ["31", 0], "sampler": ["32", 0], "sigmas": ["33", 0],
                "latent_image": ["5", 0],
            },
        },
        "30": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["34", 0]}},
        "31": {
            "class_type": "CFGGuider",
            "inputs": {"cfg": 7.5, "model": ["10", 0], "positive": ["35", 0], "negative": ["7", 0]},
        },
        "32": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "33": {
            "class_type": "KarrasScheduler",
            "inputs": {"steps": 20, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7},
        },
        "34": {"class_type": "PrimitiveInt", "inputs": {"value": 5}},
        "35": {
            "class_type": "ConditioningCombine",
            "inputs": {"conditioning_1": ["6", 0], "conditioning_2": ["36", 0]},
        },
        "36": {"class_type": "CLIPTextEncode", "inputs": {"text": ["37", 0], "clip": ["11", 0]}},
        "37": {"class_type": "PrimitiveString", "inputs": {"value": "a hat"}},
    }  # fmt: skip
    found = told(png(tmp_path, prompt=json.dumps(graph(**more))))
    assert found == ("comfyui", "a fox AND a hat", "bad", COMFY)


def test_controls_pass_prompts_on_and_zeroed_ones_are_empty(tmp_path: Path) -> None:
    more = {
        "40": {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {"positive": ["6", 0], "negative": ["41", 0], "strength": 1, "image": ["42", 0]},
        },
        "41": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}},
        "42": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "3": {
            "class_type": "KSampler",
            "inputs": {**graph()["3"]["inputs"], "positive": ["40", 0], "negative": ["40", 1]},
        },
    }
    assert told(png(tmp_path, prompt=json.dumps(graph(**more))))[1:3] == ("a fox", "")


def test_the_editor_s_form_is_read_where_the_api_s_is_missing(tmp_path: Path) -> None:
    links: list[list[Any]] = []
    nodes = []
    order = {"KSampler": ("seed", "control", "steps", "cfg", "sampler_name", "scheduler", "denoise")}
    for name, node in graph().items():
        inputs, held = [], []
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(name), 0, "X"])
                inputs.append({"name": key, "type": "X", "link": len(links)})
        values = {**node["inputs"], "control": "randomize"}
        names = order.get(
            node["class_type"], [key for key, v in node["inputs"].items() if not isinstance(v, list)]
        )
        held = [values[key] for key in names]
        nodes.append({"id": int(name), "type": node["class_type"], "inputs": inputs, "widgets_values": held})
    workflow = json.dumps({"nodes": nodes, "links": links, "version": 0.4})
    assert told(png(tmp_path, workflow=workflow)) == ("comfyui", "a fox", "bad", COMFY)


def test_graphs_that_make_no_sense_are_comfyui_s_and_say_nothing(tmp_path: Path) -> None:
    circle = {"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "latent_image": ["1", 0]}}}
    for nodes in ({"3": {"class_type": "KSampler"}}, circle):
        assert told(png(tmp_path, prompt=json.dumps(nodes), workflow="{}"))[:3] == ("comfyui", "", "")


def test_a_graph_with_an_infotext_beside_it_is_comfyui_s(tmp_path: Path) -> None:
    assert told(png(tmp_path, prompt=json.dumps(graph()), parameters=WEB_UI))[0] == "comfyui"
    empty = {"1": {"class_type": "SomethingNew", "inputs": {}}}
    tool, prompt, *_ = told(png(tmp_path, prompt=json.dumps(empty), parameters=WEB_UI))
    assert (tool, prompt) == ("comfyui", "a fox")


def test_swarmui(tmp_path: Path) -> None:
    values = {
        "sui_image_params": {
            "prompt": "a fox", "negativeprompt": "bad", "model": "v1-5", "seed": 5, "steps": 20,
            "cfgscale": 7.5, "width": 512, "height": 768, "sampler": "euler", "scheduler": "karras",
            "swarm_version": "0.9",
        }
    }  # fmt: skip
    tool, prompt, negative, parameters = told(png(tmp_path, parameters=json.dumps(values)))
    assert (tool, prompt, negative, parameters["Size"]) == ("comfyui", "a fox", "bad", "512x768")
    assert parameters["CFG scale"] == "7.5"


# InvokeAI


def test_invokeai_s_command_line(tmp_path: Path) -> None:
    for dream in (
        '"a fox [bad] (red:1.2)" -s 50 -S 123 -W 512 -H 768 -C 7.5 -A k_lms',
        '"a fox [bad] (red:1.2)" -s50 -S123 -W512 -H768 -C7.5 -Ak_lms',
    ):
        tool, prompt, negative, parameters = told(png(tmp_path, Dream=dream))
        assert (tool, prompt.split(), negative) == ("invokeai", ["a", "fox", "(red:1.2)"], "bad")
        assert parameters == {
            "Steps": "50", "Sampler": "k_lms", "CFG scale": "7.5", "Seed": "123", "Size": "512x768",
        }  # fmt: skip


SD_METADATA = {
    "model": "stable diffusion", "model_weights": "stable-diffusion-1.5", "model_hash": "cc6cb27103",
    "app_id": "invoke-ai/InvokeAI", "app_version": "2.3.0",
    "image": {
        "prompt": [{"prompt": "a fox [bad]", "weight": 1.0}], "steps": 50, "cfg_scale": 7.5, "threshold": 0,
        "perlin": 0, "height": 768, "width": 512, "seed": 123, "type": "txt2img", "sampler": "k_lms",
    },
}  # fmt: skip


def test_invokeai_2(tmp_path: Path) -> None:
    both = {"sd__metadata": json.dumps(SD_METADATA), "Dream": '"an older one" -s 1'}
    tool, prompt, negative, parameters = told(png(tmp_path, **both))
    assert (tool, prompt, negative) == ("invokeai", "a fox", "bad")
    assert {key: parameters[key] for key in ("Steps", "Sampler", "CFG scale", "Seed", "Size")} == {
        "Steps": "50", "Sampler": "k_lms", "CFG scale": "7.5", "Seed": "123", "Size": "512x768",
    }  # fmt: skip
    assert (parameters["Model"], parameters["Model hash"]) == ("stable-diffusion-1.5", "cc6cb27103")


@pytest.mark.parametrize("name", ["model_name", "name"])
def test_invokeai_3_and_later(tmp_path: Path, name: str) -> None:
    values = {
        "positive_prompt": "a fox", "negative_prompt": "bad", "width": 512, "height": 768, "seed": 5,
        "cfg_scale": 7.5, "steps": 20, "scheduler": "euler_a", "clip_skip": 1, "app_version": "4.2.0",
        "model": {name: "dreamshaper", "hash": "blake3:ab", "base": "sd-1"},
        "loras": [{"model": {name: "ink"}, "weight": 0.75}],
    }  # fmt: skip
    tool, prompt, negative, parameters = told(png(tmp_path, invokeai_metadata=json.dumps(values)))
    assert (tool, prompt, negative) == ("invokeai", "a fox", "bad")
    assert parameters == {
        "Steps": "20", "Sampler": "euler_a", "CFG scale": "7.5", "Seed": "5", "Version": "4.2.0",
        "Size": "512x768", "Model hash": "blake3:ab", "Model": "dreamshaper", "Clip skip": "2",
        "Loras": "ink: 0.75",
    }  # fmt: skip


# Fooocus


FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "v1-5", "base_model_hash": "ab12", "guidance_scale": 4,
    "loras": [["ink.safetensors", 0.5, "cd34"]], "metadata_scheme": "fooocus", "negative_prompt": "(bad:1.4)",
    "performance": "Speed", "prompt": "a fox", "resolution": "(1152, 896)", "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras", "seed": "5", "steps": 30, "version": "Fooocus v2.5.5",
}  # fmt: skip


def test_fooocus_in_png_and_exif(tmp_path: Path) -> None:
    text = json.dumps(FOOOCUS)
    for records in (
        png(tmp_path, parameters=text, fooocus_scheme="fooocus"),
        png(tmp_path, parameters=text),
        exif(tmp_path / "a.jpg", {USER_COMMENT: text.encode(), SOFTWARE: "Fooocus v2.5.5"}),
        exif(tmp_path / "a.webp", {USER_COMMENT: unicode(text), SOFTWARE: "Fooocus v2.5.5"}),
    ):
        tool, prompt, negative, parameters = told(records)
        assert (tool, prompt, negative) == ("fooocus", "a fox", "(bad:1.4)")
        assert (parameters["Size"], parameters["Seed"], parameters["CFG scale"]) == ("1152x896", "5", "4")


def test_fooocus_with_few_words_and_in_the_web_uis(tmp_path: Path) -> None:
    few = {"prompt": "a fox", "negative_prompt": "(bad art:1.4), (name:1.2), (x:1.1)", "seed": "1"}
    found = told(png(tmp_path, parameters=json.dumps(few), fooocus_scheme="fooocus"))
    assert found == ("fooocus", "a fox", few["negative_prompt"], {"Seed": "1"})
    text = f"{WEB_UI}, Version: Fooocus v2.5.5"
    assert told(png(tmp_path, parameters=text))[0] == "fooocus"
    assert told(png(tmp_path, parameters=WEB_UI, fooocus_scheme="a1111"))[0] == "fooocus"


# NovelAI


NOVELAI = {
    "Title": "AI generated image", "Description": "a fox", "Software": "NovelAI",
    "Source": "Stable Diffusion 1D44365E",
    "Comment": json.dumps({
        "steps": 28, "sampler": "k_euler_ancestral", "seed": 5, "strength": 0.69, "noise": 0.667,
        "scale": 11.0, "uc": "bad", "width": 512, "height": 768,
    }),
}  # fmt: skip


def assert_novelai(records: Records) -> None:
    tool, prompt, negative, parameters = told(records)
    assert (tool, prompt, negative) == ("novelai", "a fox", "bad")
    assert parameters == {
        "Steps": "28", "Sampler": "k_euler_ancestral", "CFG scale": "11", "Seed": "5", "Size": "512x768",
        "Denoising strength": "0.69", "Model hash": "1D44365E", "Model": "Stable Diffusion", "noise": "0.667",
    }  # fmt: skip


def test_novelai(tmp_path: Path) -> None:
    assert_novelai(png(tmp_path, **NOVELAI))


def test_novelai_4_keeps_its_prompts_in_parts(tmp_path: Path) -> None:
    comment = {
        "prompt": "", "uc": "", "sampler": "k_euler", "scale": 5.0, "seed": 1,
        "v4_prompt": {"caption": {"base_caption": "a fox", "char_captions": []}},
        "v4_negative_prompt": {"caption": {"base_caption": "bad", "char_captions": []}},
    }  # fmt: skip
    found = png(tmp_path, Software="NovelAI", Source="NovelAI Diffusion V4", Comment=json.dumps(comment))
    assert told(found)[:3] == ("novelai", "a fox", "bad")
    assert told(found)[3]["Model"] == "NovelAI Diffusion V4"


def hide(text: str, mode: str, mark: bytes, packed: bool) -> Image.Image:
    """A picture with `text` in its lowest bits, column by column."""
    data = gzip.compress(text.encode()) if packed else text.encode()
    bits = np.unpackbits(np.frombuffer(mark + (len(data) * 8).to_bytes(4, "big") + data, np.uint8))
    levels = np.random.default_rng(0).integers(0, 256, (96, 80, len(mode)), dtype=np.uint8)
    across = levels.transpose(1, 0, 2).copy()
    target = across[..., 3:] if mode == "RGBA" else across
    flat = target.reshape(-1)
    flat[: len(bits)] = (flat[: len(bits)] & 254) | bits
    target[...] = flat.reshape(target.shape)
    return Image.fromarray(np.ascontiguousarray(across.transpose(1, 0, 2)), mode)


@pytest.mark.parametrize(
    ("mode", "mark", "packed"),
    [
        ("RGBA", b"stealth_pngcomp", True), ("RGBA", b"stealth_pnginfo", False),
        ("RGB", b"stealth_rgbcomp", True), ("RGB", b"stealth_rgbinfo", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_hidden_in_the_pixels_is_found(
    tmp_path: Path, mode: str, mark: bytes, packed: bool, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    lossless: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    hide(json.dumps(NOVELAI), mode, mark, packed).save(path, **lossless)
    assert_novelai(read_records(path))
    hide(WEB_UI, mode, mark, packed).save(path, **lossless)
    assert told(read_records(path))[:2] == ("a1111", "a fox")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_mark_without_its_text_hides_nothing(tmp_path: Path) -> None:
    picture = np.asarray(hide("x", "RGBA", b"stealth_pngcomp", True)).copy()
    picture[:, 2:, 3] = 255  # its text is gone
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert read_records(tmp_path / "a.png") == Records()


# Draw Things, kohya, diffusers


DRAW_THINGS = {"c": "a fox <tame>", "uc": "bad", "steps": 20, "sampler": "Euler A", "scale": 7.5, "seed": 5,
               "size": "512x768", "strength": 1, "model": "v1-5.ckpt", "lora": []}  # fmt: skip


def test_draw_things(tmp_path: Path) -> None:
    inner = json.dumps(DRAW_THINGS).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description rdf:about="">'
        "<xmp:CreatorTool>Draw Things</xmp:CreatorTool><exif:UserComment><rdf:Alt>\n"
        f'<rdf:li xml:lang="x-default">{inner}</rdf:li></rdf:Alt></exif:UserComment>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", xmp=xmp.encode())
    Image.new("RGB", (64, 64)).save(tmp_path / "a.webp", xmp=xmp.encode())
    for name in ("a.png", "a.jpg", "a.webp"):
        tool, prompt, negative, parameters = told(read_records(tmp_path / name))
        assert (tool, prompt, negative) == ("drawthings", "a fox <tame>", "bad")
        assert (parameters["Sampler"], parameters["Size"], parameters["Seed"]) == ("Euler A", "512x768", "5")


def test_kohya_s_texts(tmp_path: Path) -> None:
    texts = {"prompt": "a fox", "negative__prompt": "bad", "seed": "5", "sampler": "euler_a", "steps": "20",
             "scale": "7.5"}  # fmt: skip
    assert told(png(tmp_path, **texts)) == (
        "kohya", "a fox", "bad", {"Steps": "20", "Sampler": "euler_a", "CFG scale": "7.5", "Seed": "5"},
    )  # fmt: skip


DGENERATE = """#! dgenerate 5.0.0

stable-diffusion-v1-5/stable-diffusion-v1-5 \\
--model-type sd \\
--seeds 5 \\
--inference-steps 20 \\
--guidance-scales 7.5 \\
--output-size 512x768 \\
--prompts "a fox; bad"
"""


def test_dgenerate_s_command(tmp_path: Path) -> None:
    for records in (
        png(tmp_path, DgenerateConfig=DGENERATE),
        exif(tmp_path / "a.jpg", {USER_COMMENT: unicode(DGENERATE)}),
    ):
        tool, prompt, negative, parameters = told(records)
        assert (tool, prompt, negative) == ("diffusers", "a fox", "bad")
        assert parameters["Model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
        assert (parameters["Steps"], parameters["Seed"], parameters["Size"]) == ("20", "5", "512x768")


def test_diffusers_words_as_texts_and_as_json(tmp_path: Path) -> None:
    values = {"prompt": "a fox", "negative_prompt": "bad", "num_inference_steps": 20, "guidance_scale": 7.5,
              "width": 512, "height": 768, "seed": 5}  # fmt: skip
    texts = {key: str(value) for key, value in values.items()}
    for records in (
        png(tmp_path, **texts),
        png(tmp_path, parameters=json.dumps(values)),
        exif(tmp_path / "a.webp", {USER_COMMENT: unicode(json.dumps(values))}),
    ):
        assert told(records) == (
            "diffusers", "a fox", "bad",
            {"Steps": "20", "CFG scale": "7.5", "Seed": "5", "Size": "512x768"},
        )  # fmt: skip


# Nobody's


@pytest.mark.parametrize(
    "comment",
    [
        "filter: 0; fileterIntensity: 0.0; \nmulti-frame: 1; ",
        "hdr: 1, night: 0, beauty: 3, mode: auto",
        "taken at the zoo",
        '{"prompt": "which of these?", "answer": 3}',
        '{"Steps": "walked: 9,000"}',
        "[1, 2, 3]",
        "",
    ],
)
@pytest.mark.parametrize("coded", [False, True])
def test_other_programs_comments_are_no_prompts(tmp_path: Path, comment: str, coded: bool) -> None:
    value = unicode(comment) if coded else b"ASCII\0\0\0" + comment.encode()
    records = exif(tmp_path / "a.jpg", {USER_COMMENT: value, MAKE: "Phones", MODEL: "One"})
    assert (records.tool, records.record, records.infotext) == (None, None, None)
    named = dict(records.texts.named())
    assert named.get("UserComment", "") == comment
    assert named["Make"] == "Phones"


@pytest.mark.parametrize("text", ['{"a": 1}', "{}", '[{"a": 1}]', '{"prompt": "x"}'])
def test_json_under_the_web_uis_key_is_no_prompt(tmp_path: Path, text: str) -> None:
    assert png(tmp_path, parameters=text, Software="Something").tool is None


def test_a_prompt_in_curly_brackets_is_one(tmp_path: Path) -> None:
    assert told(png(tmp_path, parameters="{red|blue} fox"))[:2] == ("a1111", "{red|blue} fox")


KEYS = st.sampled_from(
    [
        *(
            "prompt",
            "inputs",
            "class_type",
            "nodes",
            "links",
            "model",
            "image",
            "loras",
            "sui_image_params",
            "c",
        ),
        *(
            "uc",
            "caption",
            "v4_prompt",
            "width",
            "height",
            "seed",
            "positive",
            "negative",
            "sampler",
            "scale",
        ),
        *(
            "latent_image",
            "metadata_scheme",
            "base_model",
            "guidance_scale",
            "resolution",
            "1",
            "text",
            "steps",
        ),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ANY_TEXT = JSON.map(json.dumps) | st.text()
NAMES = [
    "parameters",
    "prompt",
    "workflow",
    "Comment",
    "Dream",
    "sd-metadata",
    "invokeai_metadata",
    "Software",
]


@given(
    png=st.dictionaries(st.sampled_from([*NAMES, "fooocus_scheme", "DgenerateConfig"]), ANY_TEXT),
    exif=st.dictionaries(st.sampled_from(["UserComment", "Make", "Model", "Software"]), ANY_TEXT),
    other=ANY_TEXT,
)
def test_no_text_is_fatal(png: dict[str, str], exif: dict[str, str], other: str) -> None:
    texts = Texts(png, exif, other, other)
    records_in(texts)
    for read in READERS:
        found = read(texts)
        if found is not None:
            assert isinstance(found[1], Infotext)
            assert all(isinstance(part, str) for part in (found[1].prompt, found[1].negative_prompt))
            assert all(isinstance(value, str) for value in found[1].parameters.values())
