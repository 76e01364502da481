"""What a picture's record and infotext say of ControlNets and adapters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ControlRecord"]

WEBUI_MODULES = {
    "blur": "blur_gaussian",
    "canny": "canny",
    "inpaint": "inpaint",
    "invert": "invert",
    "none": "none",
    "scribble": "scribble_xdog",
    "shuffle": "shuffle",
    "threshold": "threshold",
    "tile": "tile_resample",
}
WEBUI_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}


@dataclass(frozen=True)
class ControlRecord:
    """A ControlNet or adapter that steered a picture, and its hint."""

    name: str  # no path
    hash: str  # first 10 hex digits of the file's SHA-256
    image: str  # `picture_hash` of the hint's picture as it was read
    weight: float = 1.0
    start: float = 0.0  # share of the steps
    end: float = 1.0
    mode: str = "balanced"
    preprocess: str | None = None
    webui_hash: str = ""  # eight digits, as the web UI's extension tells a file
    encoder: str | None = None  # an IP-Adapter's: first 10 hex digits

    def to_record(self) -> dict[str, Any]:
        """Its fields without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def infotext(self) -> str:
        """As the web UI's ControlNet extension writes it (scripts/infotext.py)."""
        known = f"{self.name} [{self.webui_hash}]" if self.webui_hash else self.name
        parts = {
            "Module": WEBUI_MODULES.get((self.preprocess or "none").split(":")[0], self.preprocess),
            "Model": known.replace(",", " ").replace(":", " "),  # which part its words
            "Weight": f"{self.weight:.10g}",
            "Resize Mode": "Just Resize",
            "Low Vram": "False",
            "Guidance Start": f"{self.start:.10g}",
            "Guidance End": f"{self.end:.10g}",
            "Pixel Perfect": "True",
            "Control Mode": WEBUI_MODES.get(self.mode, self.mode),
        }
        return ", ".join(f"{key}: {value}" for key, value in parts.items())
