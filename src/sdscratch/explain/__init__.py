"""A picture's making as a page: one run watched, summarised, and told stage by stage.

Nothing here computes a picture: the networks and the sampler are those of every day, and are looked at while
they work. `capture.watched` draws and watches, `page.page` tells.

capture.py    one picture drawn as every day, and watched
hooks.py      what looks at networks while they compute
runner.py     what looks at the U-Net as the sampler uses it
thinned.py    a few of many, evenly
reading.py    the prompt's tokens and words
updates.py    a sampler's step as a sum with numbers
compare.py    two runs beside each other
save.py       the tensors of a run as a file
places.py     where pages go
views/        what the page shows, stage by stage
texts.py      what it says, stage by stage
glossary.py   the terms that it explains
sources.py    where in the installed source something is
equations.py  equations as MathML
charts.py     charts as SVG
inline.py     tensors as small pictures
filters.py    the colours that these get
page.py       the page
"""
