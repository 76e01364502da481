"""What is trained: for each network its loss, and the job that makes it from options.

architectures.py      the shapes of models made from nothing (no torch)
autoencoder.py        the loss of a reconstruction, and latents of mean 0 and deviation 1
adversarial.py        the discriminator's term of it
perceptual.py         the perceptual term of it
autoencoder_files.py  autoencoders as files, of a model or alone
autoencoder_job.py    `train autoencoder`
diffusion.py          the loss of denoising
latents.py            where a step's latents come from
samples.py            sample grids
model_file.py         the file that a training of diffusion ends with
diffusion_job.py      `train diffusion`
lora.py               adapters beside frozen layers, and their file
lora_job.py           `train lora`
control.py            ControlNets and adapters beside a frozen U-Net, and their file
control_job.py        `train control`
taesd.py              a tiny decoder taught by the model's own
taesd_job.py          `train taesd`
"""
