"""The version of this package, from the ground, so that every floor can name it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
