"""Ours and the engines that people use today, measured in turn: `python -m sdscratch.bench.peers`.

__main__.py  the rounds: a process for each engine, A B B A
work.py      what every engine is given to compute (no torch)
prepare.py   making that: checkpoint, configurations, latents
engine.py    what an engine is, and ours
engines.py   the others; the only file that imports any of them, when it is that one's turn
worker.py    one engine in a process of its own (no torch but its own)
report.py    ratios, distances and tables
"""
