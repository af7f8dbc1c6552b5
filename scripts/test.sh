#!/usr/bin/env bash
# Installs into .venv and runs the checks: ruff, mypy, tests and doctests. Further arguments go to pytest (-m slow, -k name).
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment "[test]"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" CUDA_VISIBLE_DEVICES=""
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -q -m "not slow" "$@"
