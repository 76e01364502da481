"""The kinds of LoRA: the tensors of each, whether they fit a weight, and what they make of it.

kind.py      what a kind is
low_rank.py  LoRA and LoCon: two thin matrices, or three factors of a convolution
loha.py      LoHa: the Hadamard product of two LoRAs
lokr.py      LoKr: a Kronecker product
glora.py     GLoRA: a LoRA, and a low-rank turn of the weight itself
oft.py       OFT and BOFT: rotations of the outputs
ia3.py       (IA)³: outputs or inputs scaled
full.py      differences in full, of weights, norms and biases
dora.py      DoRA: direction and length apart, upon any kind that adds
table.py     all of them, and a weight changed by one
"""
