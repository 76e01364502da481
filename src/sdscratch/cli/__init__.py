"""The command line: it parses, calls, and prints. torch is imported inside commands only.

app.py               the commands, exit codes, errors in one sentence
parameters.py        from settings to what Typer reads
help.py              what --help shows; commands imported when they are run
arguments.py         the options that txt2img and img2img share
generate.py          txt2img and img2img
run.py               run
schedule.py          schedule
convert.py           convert-weights
tokens.py            tokens
tokens_shown.py      what it shows
info.py              info
evaluate.py          evaluate
evaluation_tables.py what it shows
bench.py             bench
train.py             train
shapes.py            train shapes
stages.py            the stages of generating, as bars
progress.py          which of two ways stages are shown in:
view.py              lines in a log
bars.py              bars on a terminal
"""
