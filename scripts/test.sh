#!/usr/bin/env bash
# Installs into .venv and runs the checks: ruff, mypy, tests and doctests. Further arguments go to pytest (-m slow, -k name).
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment "[test]"
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=""
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A process takes over tests that another one has not begun yet; four of them have some 8 GB of memory in use.
.venv/bin/python -m pytest -q -m "not slow" -n "$(getconf _NPROCESSORS_ONLN)" --maxprocesses 4 --dist worksteal "$@"
