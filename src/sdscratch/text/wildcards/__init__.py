"""Prompts with wildcards: `{a|b}`, `{2$$a|b|c}`, `__file__`, `${variable}`, in dynamic prompts' syntax.

They are expanded before anything else reads the prompt, by a seed of their own.

template.py   text → what it is made of
folders.py    `__file__`: lists in text, JSON and YAML files
expand.py     one text by chance, or all there are
"""

from sdscratch.text.wildcards.expand import combinations, expand
from sdscratch.text.wildcards.folders import Lists
from sdscratch.text.wildcards.template import is_template, parse

__all__ = ["Lists", "combinations", "expand", "is_template", "parse"]
