# Everything a person or CI runs. Each target sets up what it needs in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Where Python may not keep what it has compiled, each of hundreds of processes compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test simulate lint bench image clean

demo: $(VENV)/.installed-demo
	@$(BIN)/deferd demo

test: $(VENV)/.installed-test
	$(BIN)/pytest $(ARGS)

# SEEDS=1000 (the first thousand), SEEDS=5-20, or SEEDS=seed:17 (that one again, with its whole trace).
simulate: $(VENV)/.installed-test
	@$(BIN)/python -m tests.simulation $(SEEDS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench $(ARGS)

image:
	@engine=$$(command -v docker || command -v podman) || { echo "make image: neither docker nor podman is installed" >&2; exit 1; }; \
	$$engine build -t deferd .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: $(BIN)/python pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-%: $(BIN)/python pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
