"""From words to ids.

form.py        what a CLIP tokenizer consists of, as one value
files.py       that value from tokenizer files, and back
tokenizer.py   prompts to ids
prompt.py      a prompt as the row that the text encoder reads
"""
