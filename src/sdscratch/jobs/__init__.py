"""Many pictures by a plan: nothing lost, nothing twice.

options.py   what a line may say besides what a picture depends on
lines.py     plain lines: prompts, the web UI's and kohya's
axes.py      TOML: products, zips, ranges, files
source.py    a plan's file line by line
plan.py      any of them as jobs
names.py     file names by a template
journal.py   what is done, beside the pictures; shards; who is at work
wildcards.py prompts with wildcards as pictures' prompts
tasks.py     the pictures of a plan with their models, all of it checked
keeping.py   what every picture needs: its init picture, its file, or its line kept
variants.py  which pictures begin alike
run.py       what is missing, drawn
estimate.py  how long it will take
grid.py      contact sheets: pictures with labels on pages
sheet.py     a plan's, by its axes
stream.py    lines of a pipe, each drawn as it comes
ours.py      what our own record says of a picture, as a line of a plan
theirs.py    what other tools say, likewise
finding.py   the files that a picture names, by hash and name
search.py    all that one picture names, looked for
replay.py    a picture as a line with the files that are here
redraw.py    drawn again, and compared
verify.py    what proves a picture
"""
