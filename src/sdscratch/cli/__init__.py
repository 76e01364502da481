"""The command line: it parses, calls, and prints. torch is imported inside commands only.

app.py         the commands, exit codes, errors in one sentence
parameters.py  from settings to what Typer reads
help.py        what --help shows; commands imported when they are run
arguments.py   the options that txt2img and img2img share
generate.py    txt2img and img2img
convert.py     convert-weights
tokens.py      tokens
info.py        info
evaluate.py    evaluate
evaluation_tables.py   its result as tables
bench.py       bench
train.py       train
shapes.py      train shapes
progress.py    which of two ways stages are shown in:
view.py        lines in a log
bars.py        bars on a terminal
"""
