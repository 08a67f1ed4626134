.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
FACEKIT := $(VENV)/bin/facekit

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PYTHON) -m pip install --quiet -e '.[dev]'
	touch $@

install: $(VENV)/installed ## virtual environment with facekit in it

demo: install ## the bundled photo -> its face -> an anime face, into demo/
	mkdir -p demo/photos
	$(PYTHON) -c "from skimage import data, io; io.imsave('demo/photos/astronaut.png', data.astronaut())"
	$(FACEKIT) align demo/photos demo/faces --size 256
	$(FACEKIT) translate --to anime demo/faces demo/anime --sheet
	$(FACEKIT) translate --to anime demo/photos demo/pasted --paste
	@echo "look at demo/anime-sheet.png"

test: $(VENV)/installed-dev ## all tests
	$(PYTHON) -m pytest

lint: $(VENV)/installed-dev ## lint, types, import layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean: ## remove what demo and test made
	rm -rf demo $(VENV)

.PHONY: help install demo test lint clean
