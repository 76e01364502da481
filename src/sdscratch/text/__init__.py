"""From words to ids, and from ids' weights to what a network is told.

vocabulary.py  what a CLIP tokenizer consists of, as one value
files.py       that value from tokenizer files, and back
tokenizer.py   text to ids
prompt.py      what a prompt is once it has been read: spans, stages, parts, tags
cutting.py     a prompt as one row, cut where it is too long
syntax/        text to spans with weights, a file a dialect
chunks.py      spans to the rows that the text encoder reads
reading.py     all of that by a syntax's name: a prompt to parts, stages and chunks
wildcards/     templates to prompts, before all of it
emphasis.py    what weights do to the text encoder's output (torch)
"""
