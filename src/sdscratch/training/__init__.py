"""Training: one loop for every network, and what each of them brings to it.

    engine/   the loop and its step, replicas, processes, checkpoints, metrics, random numbers
    dataset/  pictures with captions: what a step is given
    run/      what can be asked of `train`, the run's folder, and what a person sees of it
    tasks/    the networks: what each computes of a batch, how it begins and what it leaves

Imports run downward: run/ knows engine/ and dataset/, tasks/ know all of them.
"""
