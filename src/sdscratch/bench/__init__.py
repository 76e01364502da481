"""How fast is it here? Measuring this machine with any model, or with random weights of full size.

measure.py         every stage between a file and a picture, timed
pictures.py        how far pictures are from each other
approximations.py  what each approximation gains, and how far it leads from the exact picture
machine.py         what a measurement must say of the machine
memory.py          the memory that a process needs at most (no torch)
random_model.py    random weights in a real model's shape, in memory or as a file
gpu_check.py       is what a GPU draws what a CPU draws, and how fast: `make gpu-check`
gpu_report.py      what that found, as rows
peers/             ours and other engines in turn: `make bench-peers`
"""
