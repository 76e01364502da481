"""The networks of `models`, faster: how this device runs them best. Every way computes the same, to rounding.

prepare.py      a network just loaded, each module in its fastest form
unet.py         the U-Net's pass: the guided half-batch, and the deep features of DeepCache
attention.py    attention on a CPU, drawing and learning
kernels.py      upsampling, feed-forward and convolutions on a CPU; a prompt's keys remembered
winograd.py     3×3 convolutions with fewer products
int8.py         products of 8-bit integers, an approximation by choice
widened.py      16-bit weights on a processor that multiplies float32 alone
bands.py        the autoencoder in bounded memory, exactly
upscale.py      upscalers likewise
features.py     what lies between two layers, in memory or in a file
seamless.py     convolutions that see a picture's other side beyond its edge
processor.py    what this machine's processor can do
accelerate.py   a computation as a whole: compiled, recorded, with the best kernel of attention
compute.py      what such a computation is
graphs.py       recordings: CUDA graphs
compiled.py     compilation
backends.py     the kernel of attention that is fastest on a GPU
"""
