"""The command line: it parses, calls, and prints. torch is imported inside commands only.

app.py               the commands, exit codes, errors in one sentence
parameters.py        from settings to what Typer reads
help.py              what --help shows; commands imported when they are run
arguments.py         the options that txt2img and img2img share
generate.py          txt2img and img2img
telling.py           pictures as they are made: shown, saved, told of
explain.py           explain
look.py              films, and pictures in the terminal
films.py             films from one picture to another
masks.py             what is asked of a mask, checked
upscale.py           upscale, and what it shows:
upscale_shown.py     how far a redrawing is
run.py               run, and what it shows:
run_shown.py         drawing a plan, or a pipe's lines
replay.py            replay
verify.py            verify
convert.py           convert-weights
tokens.py            tokens, and how a prompt is shown:
tokens_shown.py      in tables and lines
schedule.py          schedule
info.py              info
info_files.py        which files a picture names, and where they are
evaluate.py          evaluate
evaluation_tables.py its tables
bench.py             bench
train.py             train and its kinds
shapes.py            train shapes
reference.py         docs/options.md, and what other pages say of the code:
reference_tables.py  samplers, spacings, other tools
stages.py            what `generate` tells of, as stages
told.py              what --json says of a picture
progress.py          which of two ways stages are shown in:
view.py              lines in a log
bars.py              bars on a terminal
"""
