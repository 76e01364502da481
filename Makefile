# make demo   a first picture, from nothing but Python and make
# make test   the tests (minutes); test-full adds the full-size parity runs; check is ruff, mypy, the layering and the maps
# make test-faults   mutated files by the hundred thousand: an hour of a core; FAULTS="--help" tells more
# make docs   docs/options.md and the line counts in README.md, brought up to date with the code
# make judge   trains the classifier that `sdscratch evaluate MODEL pictograms` asks: 30 to 80 minutes on two cores
# make model   the built-in model from nothing, and its score; goes on where it was stopped. See its variables below
# make scribble   trains the built-in model's adapter that follows sketches; goes on where it was stopped
# make bench-peers   ours and others in turn: 24 GB of memory, 15 GB of disk, 15 minutes; PEERS="--help" tells more
# make constraints   docs/constraints.txt and docs/sbom.cdx.json: the versions that the tests run with
# make gpu-check   every GPU path beside the CPU, then its speed: 10 minutes of a GPU. GPU="--help" tells more

PYTHON ?= python3
# Pinned, so that a machine that has this build at hand takes it; elsewhere the pin gives the usual build.
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-full test-faults check docs model judge scribble bench-peers gpu-check constraints clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	# a public reader of pictures' texts: it asks for an old Pillow, and does with the new one
	$(BIN)/python -m pip install --quiet --no-deps "sd-prompt-reader==1.3.5"
	# upscalers' networks: it asks for torchvision, which asks for another torch, and does without
	$(BIN)/python -m pip install --quiet --no-deps "spandrel==0.4.2"
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	# compiles for minutes; where it cannot, the others are compared without it
	-$(BIN)/python -m pip install --quiet "stable-diffusion-cpp-python>=0.4.7"
	-$(BIN)/python -m pip install --quiet "nncf>=3.0"
	@touch $@

demo: $(VENV)/.installed
	@mkdir -p outputs
	$(BIN)/sdscratch txt2img "a dog wearing sunglasses" --seed 0 --output outputs/demo.png --overwrite
	@echo "The picture is outputs/demo.png"

# a file a process, a thread each: torch's threads would fight over the cores
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed-test
	$(PYTEST) -m "not full" -n 2 --dist loadfile

test-full: $(VENV)/.installed-test
	$(PYTEST) -m full

test-faults: export OMP_NUM_THREADS := 1
test-faults: $(VENV)/.installed-test
	PYTHONPATH=src:tests $(BIN)/python -m faults $(FAULTS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layers.py tests/test_maps.py

docs: $(VENV)/.installed
	$(BIN)/python -m sdscratch.cli.reference

# The built-in model: first for 64×64 pixels, then for 128×128 with those weights. How long each stage takes is
# asked for in minutes, which count over interruptions; what a stage leaves in RUN says that it is over.
#   make model                                       nearly nine hours of two cores
#   make model DEVICE=cuda BATCH="--batch 256"       the whole vocabulary, and larger batches
#   make model FROM=weights/default.safetensors      on from a model that there is
DEVICE ?= auto
BATCH ?=
RUN ?= $(HOME)/.cache/sdscratch-training
MODEL ?= $(RUN)/model.safetensors
SMALL_AUTOENCODER_MINUTES ?= 20
SMALL_DIFFUSION_MINUTES ?= 75
AUTOENCODER_MINUTES ?= 30
DIFFUSION_MINUTES ?= 275
REFINE_MINUTES ?= 40
DECODER_MINUTES ?= 75
TAESD_MINUTES ?= 5
SMALL := $(RUN)/small
BEGINNING := $(or $(FROM),$(SMALL)/model.safetensors)
EMBEDDED := $(BIN)/python -m sdscratch.pictograms
TRAINING = --device $(DEVICE) $(BATCH) --minutes

model: $(MODEL)
	$(BIN)/sdscratch evaluate $(MODEL) pictograms

$(SMALL)/.autoencoder: | $(VENV)/.installed-test
	$(EMBEDDED) autoencoder --size 64 --folder $(SMALL) $(TRAINING) $(SMALL_AUTOENCODER_MINUTES)
	@touch $@

$(SMALL)/model.safetensors: | $(SMALL)/.autoencoder
	$(EMBEDDED) diffusion --size 64 --folder $(SMALL) $(TRAINING) $(SMALL_DIFFUSION_MINUTES)
	$(EMBEDDED) export $@ --size 64 --folder $(SMALL)

ifdef FROM
$(RUN)/.autoencoder: | $(VENV)/.installed-test
	$(EMBEDDED) begin $(FROM) --folder $(RUN)
	@touch $@
else
$(RUN)/.autoencoder: | $(SMALL)/model.safetensors
	$(EMBEDDED) autoencoder --grow $(SMALL)/model.safetensors --folder $(RUN) $(TRAINING) $(AUTOENCODER_MINUTES)
	@touch $@
endif

$(RUN)/.diffusion: | $(RUN)/.autoencoder
	$(EMBEDDED) diffusion --grow $(BEGINNING) --folder $(RUN) $(TRAINING) $(DIFFUSION_MINUTES)
	@touch $@

$(MODEL): | $(RUN)/.diffusion
	$(EMBEDDED) refine --folder $(RUN) $(TRAINING) $(REFINE_MINUTES)
	$(EMBEDDED) decoder --folder $(RUN) --decay-from 0.5 $(TRAINING) $(DECODER_MINUTES)
	$(EMBEDDED) taesd --folder $(RUN) $(TRAINING) $(TAESD_MINUTES)
	$(EMBEDDED) export $@ --folder $(RUN)

# goes on where it was stopped; JUDGE="--help" tells more
judge: $(VENV)/.installed-test
	$(BIN)/python -m sdscratch.pictograms judge $(JUDGE)

SCRIBBLE_MINUTES ?= 90
scribble: $(VENV)/.installed-test
	$(EMBEDDED) scribble --output $(RUN)/scribble.safetensors --folder $(RUN) $(TRAINING) $(SCRIBBLE_MINUTES)

bench-peers: $(VENV)/.installed-bench
	$(BIN)/python -m sdscratch.bench.peers $(PEERS)

gpu-check: $(VENV)/.installed-test
	$(BIN)/python -m sdscratch.bench.gpu_check --json gpu-check.json $(GPU)

constraints: $(VENV)/.installed-test
	$(BIN)/python tests/support/tested_set.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
