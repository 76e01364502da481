"""From prompt to picture: a model on a device, and the stages that a picture goes through.

opening.py        what pictures are drawn with, found and checked before anything is loaded
pipeline.py       a model that draws: what Python users hold
generate.py       many pictures from one model, told of as they come
requests.py       what is asked of it, and the events that it answers with
conditioning.py   prompts → what the U-Net is told
told.py           one text of a prompt, encoded
between.py        two prompts mixed, for films
inits.py          pictures that are given → what image-to-image starts from
inpaint.py        masks carried out; what inpainting and instructed models are told
controls.py       ControlNets and adapters at work
start.py          noise, or a picture under noise → the latent to start from
sampling.py       a request's latents: what follows, put together
denoise.py        the U-Net as a denoiser, guided
guided.py         what options say of guidance
known.py          predictions that variants share, made once
ranges.py         LoRAs that act at some steps only
decode.py         latents → pictures
preview.py        what is in a latent, in a moment
tiles.py          which pictures are encoded and decoded in pieces, by memory
enlarge.py        pictures and latents made larger: by interpolation, or by an upscaler
windows.py        latents larger than a model draws, denoised in windows that are blended
journal.py        what windows gave, kept in a file so that a run goes on
hires.py          the second pass, at a larger size
ahead.py          work that is begun before its result is needed
networks.py       the networks by name: loaded, let go, retried in float32
outputs.py        where pictures go
"""
