"""What a user adds to a model: LoRAs of every kind, embeddings, a VAE. No torch before tensors are read.

requests.py    how add-ons are asked for: `FILE:0.8` as an option, `<lora:name:0.8>` in a prompt
blocks.py      block weights: how strongly a LoRA acts on each block of the U-Net
lora_names.py  what a LoRA's file calls its modules, and which weights of the model they are
lora.py        LoRA files: every tensor accounted for, and added to the weights where they are read
kinds/         one file a kind of LoRA: its tensors, whether they fit, and what they make of a weight
embedding.py   textual inversion: vectors under a name, from every form of file
cards.py       embeddings that travel in pictures
vae.py         the autoencoder of any file, alone or in a model
control_requests.py   how ControlNets and adapters are asked for
control.py            told apart and opened, with their hints
control_files.py      what their files have in common
controlnet.py         ControlNets, in every form of file
ip_adapter.py         IP-Adapters, and their image encoder
t2i_adapter.py        T2I-Adapters, full and light
upscaler.py    upscalers of the ESRGAN family, told apart and checked
apply.py       a model with add-ons: found, opened, checked
merge.py       models made of models: weighted sums, differences
describe.py    what there is to say of an add-on's file
"""
