"""What may happen to files, done on purpose: the table in docs/reliability.md.

hunt.py      mutated files through a reader, under watch: what it raises, how long it takes, what it touches
mutate.py    bytes, JSON and pickles changed so that most of them is still sound
headers.py   headers of tensor files
samples.py   small sound files of every kind that is read
whole.py     whole files, read as the commands read them
pictures.py  pictures and what is written in them
table.py     the table, in JSON and in the docs

`python -m faults` runs them; `--help` tells more.
"""
