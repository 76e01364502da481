"""What pictures say of how they were made: our own record, and everybody's, one file a tool's dialect.

record.py       our own record, and the infotext that is written beside it
extras.py       what is said of a picture that was enlarged and not drawn
sampling_words.py  what the infotext says of sampling, guidance and noise
infotext.py     the web UIs' text taken apart: prompt, negative prompt, pairs
settings.py     what A1111 and Forge make of it: defaults, and the switches of old versions
texts.py        the texts that a picture carries, by the names that PNG and EXIF give them
values.py       JSON from strangers, and its values in the web UIs' words
dialects.py     the table of the readers below: which tool says it, and what
webui.py        A1111, Forge and who writes as they do; also hidden in the pixels
sdcpp.py        stable-diffusion.cpp: the web UIs' text, and JSON unquoted in it
comfyui.py      ComfyUI and SwarmUI: the graph walked to its samplers
comfy_graph.py  the graph itself: from the API's form or the editor's, links and values followed
invokeai.py     InvokeAI: `Dream`, `sd-metadata`, `invokeai_metadata`
novelai.py      NovelAI: `Comment`, also hidden in the alpha channel
fooocus.py      Fooocus and its descendants
drawthings.py   Draw Things: JSON in XMP
kohya.py        kohya's gen_img.py: a PNG text a setting
diffusers.py    dgenerate, Easy Diffusion and others that speak diffusers' words
hidden.py       text in the lowest bits of the pixels
"""
