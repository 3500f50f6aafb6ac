# Each recipe is also a step of .ci/run.

fmt:
    ruff check --fix .
    ruff format .

lint:
    ruff check .
    ruff format --check .

types:
    pyright

layers:
    lint-imports

test *ARGS:
    pytest {{ARGS}}

test-slow:
    pytest -m slow

test-gpu:
    pytest -m gpu

golden:
    python tests/golden_plots.py

bench *ARGS:
    python benchmarks/run.py {{ARGS}}

all: lint types layers test test-slow
