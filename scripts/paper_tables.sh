#!/usr/bin/env bash
# The paper's tables, redone: every experiment is a sweep over seeds, and the same command goes on where it was stopped.
#   bash scripts/paper_tables.sh                    all of it: days on two cores
#   bash scripts/paper_tables.sh --small            all of it with short rounds and few clips: a few hours
#   bash scripts/paper_tables.sh --people CLIENTS   and the tables of real people (a folder of `fedtalk prepare`)
#   bash scripts/paper_tables.sh --quick            a miniature of all of it, minutes: it shows that the way is whole, its
#                                                   figures are those of an untrained network
# --only methods-30 rules-30: these tables alone; --jobs 2: two runs at a time; as many as there are cores or GPUs by default.
# Results: runs/paper/ (runs/paper-small/, runs/paper-quick/): one sweep a table, tables.md made of them.
# More: scripts/paper_tables.py --help
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment ""
exec .venv/bin/python scripts/paper_tables.py "$@"
