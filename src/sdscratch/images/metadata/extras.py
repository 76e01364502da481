"""What is said of a picture that was enlarged and not drawn: A1111's "extras" tab's words.

`parameters` stays what the picture said that it was made of; `extras` says what was done to it since.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdscratch.images.metadata.infotext import quote

__all__ = ["Extras"]


@dataclass(frozen=True)
class Extras:
    """An enlargement.

    Attributes:
        infotext: what the picture said of itself in the web UIs' words, if it did.
        scale: how many times as large it became.
        upscaler: the name of what enlarged it.
        hash: of its file, if it is one.
    """

    infotext: str | None
    scale: float
    upscaler: str
    hash: str | None = None

    def text(self) -> str:
        """As the web UI writes it."""
        words = {
            "Postprocess upscale by": f"{self.scale:.10g}",
            "Postprocess upscaler": quote(self.upscaler),
            "Postprocess upscaler hash": self.hash,
        }
        return ", ".join(f"{key}: {value}" for key, value in words.items() if value)

    def whole(self) -> str:
        """Both in one text, where there is room for one alone."""
        return f"{self.infotext}, {self.text()}" if self.infotext else self.text()
