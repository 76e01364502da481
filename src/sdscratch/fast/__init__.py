"""The networks of `models`, faster: how this device runs them best. Every way computes the same, to rounding.

accelerate.py   on a GPU: CUDA graphs, compilation, the kernel of attention
"""
