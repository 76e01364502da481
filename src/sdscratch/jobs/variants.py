"""Which pictures of a plan begin alike, and differ only later: what they share is computed once.

Whether they do is seen by the numbers that the network is asked with (`generation.known`); here it is only
said for which pictures it is worth looking.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import fields

from sdscratch.generation.conditioning import planned_evaluations
from sdscratch.jobs.tasks import Task, given_key
from sdscratch.options import ResolvedOptions
from sdscratch.text.prompt import Part, selected, take_tags
from sdscratch.text.reading import find_syntax, parts_of, stages_of

__all__ = ["NEAR", "beginning", "with_variants"]

NEAR = 64  # pictures before and behind one: what is further away is not remembered any more
LATER = {
    "prompt",
    "negative_prompt",
    "cfg_interval",
    "decoder",
    "tile",
}  # what does not act from the first step
ACTING = [
    each.name
    for each in fields(ResolvedOptions)
    if each.name not in LATER and not each.name.startswith("hires")
]


def with_variants(tasks: Iterable[Task], near: int = NEAR) -> Iterator[tuple[Task, bool]]:
    """Every picture in turn, and whether another one near it begins alike."""
    waiting: deque[tuple[Task, Hashable]] = deque()
    behind: deque[Hashable] = deque()
    counts: Counter[Hashable] = Counter()

    def first() -> tuple[Task, bool]:
        task, key = waiting.popleft()
        behind.append(key)
        variants = counts[key] > 1
        if len(behind) > near:
            oldest = behind.popleft()
            counts[oldest] -= 1
            if not counts[oldest]:
                del counts[oldest]
        return task, variants

    for task in tasks:
        key = beginning(task)
        waiting.append((task, key))
        counts[key] += 1
        if len(waiting) > near:
            yield first()
    while waiting:
        yield first()


def beginning(task: Task) -> Hashable:
    """What a picture's first step depends on, but for add-ons, of which ranges of steps may be asked."""
    options = task.options
    told = [
        _first_text(options.prompt, options),
        _first_text(options.negative_prompt, options, negative=True),
    ]
    return task.job.source.model, *told, given_key(task.job), *(getattr(options, name) for name in ACTING)


def _first_text(text: str, options: ResolvedOptions, *, negative: bool = False) -> Hashable:
    """What a prompt says at the first evaluation of the network."""
    row = find_syntax(options.prompt_syntax)
    text = take_tags(text)[0]
    whole = negative or row.name == "compel"
    evaluations = planned_evaluations(options.sampler, options.steps)
    return tuple(
        (stages[selected(stages, 0)].text, part.weight)
        for part in ((Part(text),) if whole else parts_of(text, row))
        if (stages := stages_of(part.text, row, evaluations))
    )
