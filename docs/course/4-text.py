"""What the text encoder makes of prompts: tokens, and how alike their meanings are."""

import sys

import torch
from PIL import Image, ImageDraw, ImageFont

from sdscratch import load

PROMPTS = (
    "a red apple", "a green apple", "a red car", "a green car",
    "a dog", "a cat", "a dog wearing a crown", "a cat wearing a crown",
)  # fmt: skip
CELL, LEFT, FONT = 52, 190, ImageFont.load_default(15)
pipeline = load("default", device="cpu", dtype="float32")
tokenizer = pipeline.files.tokenizer

rows = []
for prompt in PROMPTS:
    (part,) = pipeline.encode_prompts(prompt)
    ids = part.planned.stages[0].chunks[0].ids
    end = ids.index(tokenizer.end)
    print(f"{prompt:14}", " ".join(f"{tokenizer.piece(id)}·{id}" for id in ids[1:end]))
    rows.append(part.at(0).context[0, end])  # what is said where the prompt ends: it has seen all of it
rows = torch.stack(rows)
rows = rows - rows.mean(0)  # what all of them have in common tells nothing
alike = torch.cosine_similarity(rows[:, None], rows[None], dim=-1)
sheet = Image.new("RGB", (LEFT + CELL * len(PROMPTS), CELL * len(PROMPTS)), "white")
pencil = ImageDraw.Draw(sheet)
for row, prompt in enumerate(PROMPTS):
    pencil.text((8, (row + 0.5) * CELL), prompt, "black", FONT, "lm")
    for column, value in enumerate(alike[row].tolist()):
        left, top = LEFT + column * CELL, row * CELL
        other = round(255 * (1 - abs(value)))
        colour = (255, other, other) if value > 0 else (other, other, 255)
        pencil.rectangle((left, top, left + CELL - 2, top + CELL - 2), colour)
        pencil.text((left + CELL / 2, top + CELL / 2), f"{value:.2f}", "black", FONT, "mm")
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "text.webp", lossless=True)
