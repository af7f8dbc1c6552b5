#!/usr/bin/env bash
# The paper's tables, redone: every experiment is a sweep over seeds, and the same command goes on where it was stopped.
#   bash scripts/paper_tables.sh                    all of it: hours
#   bash scripts/paper_tables.sh --people CLIENTS   and the table of real people (a folder of `fedtalk prepare`)
#   bash scripts/paper_tables.sh --quick            a miniature of all of it, minutes: it shows that the way is whole, its
#                                                   figures are those of an untrained network
# Results: runs/paper/ (runs/paper-quick/): one sweep a table, tables.md made of them. More: scripts/paper_tables.py --help
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment ""
exec .venv/bin/python scripts/paper_tables.py "$@"
