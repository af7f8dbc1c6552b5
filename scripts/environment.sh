# Sourced by the other scripts: makes .venv on first use and installs the package into it.
# PYTHON names the interpreter (3.10 to 3.13); python3 by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment() {  # environment EXTRAS
  local wanted stamp=".venv/.installed$1"
  if [ ! -x .venv/bin/python ]; then
    echo "== making .venv"
    "${PYTHON:-python3}" -m venv .venv
  fi
  wanted=$(cksum < pyproject.toml)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "== installing fedtalk$1 (a few minutes the first time)"
    .venv/bin/python -m pip install --quiet --editable ".$1"
    echo "$wanted" > "$stamp"
  fi
  # Threads that wait should not keep a core busy.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
}
