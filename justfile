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

test-gpu:
    pytest -m gpu

golden:
    python -m tests.golden_plots

bench *ARGS:
    python benchmarks/run.py {{ARGS}}

all: lint types layers test
