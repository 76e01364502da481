"""Ours and the engines that people use today, measured in turn: `python -m sdscratch.bench.peers`.

__main__.py  the rounds: a process for each engine, A B B A
work.py      what every engine is given to compute (no torch)
prepare.py   making that: checkpoint, configurations, latents
engines.py   ours and the others; the only file here that imports any of them, and only in an engine
worker.py    one engine in a process of its own (no torch but its own)
report.py    ratios, distances and tables
"""
