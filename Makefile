.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
FACEKIT := $(VENV)/bin/facekit
# CPU=1 installs torch without CUDA: smaller by some 4 GB, for machines without an NVIDIA GPU
CPU ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(if $(CPU),$(PYTHON) -m pip install --quiet torch torchvision --index-url $(TORCH_INDEX))
	$(PYTHON) -m pip install --quiet -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PYTHON) -m pip install --quiet -e '.[dev]'
	$(PYTHON) -m pip install --quiet s3fs 'moto[server]>=5' # in one go with the rest pip looks for versions for minutes
	touch $@

install: $(VENV)/installed ## create .venv with facekit in it (CPU=1: without CUDA)

install-dev: $(VENV)/installed-dev ## also with the tools for tests, lint and docs

demo: install ## one bundled photo -> its face -> an anime face, in demo/
	mkdir -p demo/photos
	$(PYTHON) -c "from skimage import data, io; io.imsave('demo/photos/astronaut.png', data.astronaut())"
	$(FACEKIT) align demo/photos demo/faces --size 256
	$(FACEKIT) translate --to anime --size 256 demo/faces demo/anime --sheet
	$(FACEKIT) translate --to anime demo/photos demo/pasted --paste
	@echo "look at demo/anime-sheet.png"

# One process more than cores, because some tests wait. To explain asserts pytest rewrites 170 files in each process, which
# takes 12 s of it: only those that fail are explained, in a second run.
test: install-dev ## all tests, slow ones too, on all cores
	$(PYTHON) -m compileall -q src
	processes=$$($(PYTHON) -c "from facekit.runtime.cores import usable_cores; print(usable_cores() + 1)"); \
	$(PYTHON) -m pytest --slow -n $$processes --assert=plain \
	|| { $(PYTHON) -m pytest --last-failed --last-failed-no-failures none; exit 1; }

docs: install-dev ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(PYTHON) -m mkdocs build

lint: install-dev ## style, types, import layers, links
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) tools/check_links.py

package: install-dev ## wheel and sdist, in dist/
	$(PYTHON) -m build

clean: ## remove what these targets created
	rm -rf demo site dist build $(VENV)

.PHONY: help install install-dev demo test docs lint package clean
