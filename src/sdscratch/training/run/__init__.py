"""A run: what is asked for, the folder that it is kept in, and what a person sees of it.

options.py       what can be asked of `train`, one line an option (no torch)
lora_options.py  the same for `train lora`, and the plan it makes (no torch)
control_options.py  the same for `train control` (no torch)
config_file.py   options as a TOML file (no torch)
run_folder.py    the folder, claimed before any work (no torch)
job.py           what every kind of training does around its own networks
display.py       the bar and the lines on stderr
curve.py         the loss as a picture (no torch)
"""
