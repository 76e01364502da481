"""The command line: it parses, calls, and prints. torch is imported inside commands only.

app.py         the commands, exit codes, errors in one sentence
arguments.py   the options that txt2img and img2img share
generate.py    txt2img and img2img
convert.py     convert-weights
tokens.py      tokens
info.py        info
evaluate.py    evaluate
progress.py    bars on a terminal, lines in a log
"""
