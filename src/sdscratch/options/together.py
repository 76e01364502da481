"""What several options say together: what goes with what, and what follows from it."""

from __future__ import annotations

from typing import Any

from sdscratch.checks import parse_apg
from sdscratch.diffusion.spacing import parse_sigmas
from sdscratch.errors import UsageError
from sdscratch.options.fields import MAX_SEED

__all__ = ["check_emphasis", "check_guidance", "own_levels", "variation"]


def own_levels(
    sigmas: str, steps: int | None, scheduler: str | None, strength: float | None
) -> dict[str, Any]:
    """What follows from noise levels of one's own, in the place of what else would choose them.

    Raises:
        UsageError: something else was asked for that chooses them.
    """
    levels = parse_sigmas(sigmas)
    if scheduler is not None or strength not in (None, 1.0):
        raise UsageError("--sigmas says all noise levels itself; leave --scheduler and --strength out")
    if steps is not None and steps != len(levels) - 1:
        raise UsageError(f"--sigmas makes {len(levels) - 1} steps, but --steps is {steps}; leave it out")
    written = ",".join(map(repr, levels))
    return {"sigmas": written, "steps": len(levels) - 1, "scheduler": None, "strength": 1.0}


def variation(asked: int | None, strength: float | None, seed: int) -> dict[str, Any]:
    """The variation's seed, one above the picture's where none was asked for, and its strength; no seed
    without any.

    Raises:
        UsageError: a seed, and nothing said of its strength.
    """
    if asked is not None and strength is None:
        raise UsageError(
            "--variation-seed varies the picture by --variation-strength, which is 0; give that, too, "
            "like 0.2"
        )
    if not strength:
        return {"variation_seed": None, "variation_strength": 0.0}
    own = (seed + 1) % (MAX_SEED + 1)
    return {"variation_seed": own if asked is None else asked, "variation_strength": strength}


def check_guidance(apg: str | None, dynamic_threshold: str | None, window: int | None) -> None:
    """
    Raises:
        UsageError: two ways to guide at once, or one that remembers a picture beside windows of it.
    """
    if apg is not None and dynamic_threshold is not None:
        raise UsageError("--apg and --dynamic-threshold are two ways to guide; leave one out")
    if apg is not None and window and parse_apg(apg)[1] != 0.0:
        raise UsageError(
            "--apg remembers a picture from step to step, so with --window it takes a momentum of 0, like 0,0"
        )


def check_emphasis(emphasis: str | None, syntax: str) -> None:
    """
    Raises:
        UsageError: compel's ways with another syntax's prompt, or the other way round.
    """
    if emphasis is not None and emphasis.startswith("compel") != (syntax == "compel"):
        raise UsageError(
            f"the emphasis {emphasis} does not go with prompts of the syntax {syntax}: compel and "
            "compel-remove are those of compel, and of no other; choose another --emphasis or --prompt-syntax"
        )
