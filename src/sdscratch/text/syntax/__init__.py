"""How a prompt is written: a file a dialect, text to spans with weights. No torch.

brackets.py    the brackets that A1111, kohya and stable-diffusion.cpp share
a1111.py       A1111 and Forge: weights, BREAK, AND
editing.py     A1111's `[a:b:0.5]` and `[a|b]`: which text is read at which step
comfyui.py     ComfyUI: weights in round brackets
compel.py      compel and InvokeAI: `word+`, `(two words)1.3`, blends and conjunctions
kohya.py       kohya's sd-scripts: A1111's, with other breaks
sdcpp.py       stable-diffusion.cpp: A1111's, with other escapes and breaks
plain.py       none: every character is text
"""
