#!/usr/bin/env bash
# Ten minutes of a GPU: the tests that need one, then a larger backbone in bf16 for the rest of the time, resumable, a checkpoint
# a round (well under a minute). Self-contained: what the machine lacks lies in gpu/ (ignored by git; `gpu_run.sh --pack` fills it
# beforehand: prepared pieces, the codec, wheels named on the command line).
#   bash scripts/gpu_run.sh --pack [WHEEL...]        here, beforehand: at most 60 MB
#   bash scripts/gpu_run.sh [SECONDS] [OUT]          there; writes OUT/backbone (default gpu/out)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=.venv/bin/python
if [ "${1:-}" = --pack ]; then
  shift
  mkdir -p gpu/wheels gpu/people
  cp -r runs/codec/codec gpu/
  for person in runs/people128_open/*/; do  # a few clips of each person
    mkdir -p "gpu/people/$(basename "$person")"
    find "$person" -name '*.npz' | sort | head -n "${CLIPS:-6}" | xargs -I{} cp {} "gpu/people/$(basename "$person")/"
  done
  [ $# -eq 0 ] || cp "$@" gpu/wheels/
  du -sm gpu
  [ "$(du -sm gpu | cut -f1)" -le 60 ] || { echo "gpu_run.sh: gpu/ is larger than 60 MB; set CLIPS lower" >&2; exit 1; }
  exit
fi
seconds=${1:-480} out=${2:-gpu/out}
end=$((SECONDS + seconds))
if compgen -G 'gpu/wheels/*.whl' > /dev/null; then
  "$python" -m pip install -q --no-index --no-deps --target gpu/site gpu/wheels/*.whl
  export PYTHONPATH=$PWD/gpu/site
fi
export PYTHONPATH=$PWD:${PYTHONPATH:-}
"$python" -m pytest -q -m gpu tests || echo "gpu_run.sh: tests marked gpu failed, see above" >&2
left=$((end - SECONDS - 30))
mkdir -p "$out"
timeout --signal=TERM "$left" "$python" -m fedtalk.cli fit --config configs/backbone.yaml --config configs/gpu.yaml \
  --data.people gpu/people --model.architecture.codec gpu/codec --trainer.default_root_dir "$out" --ckpt_path last ${GPU_ARGS:-} ||
  echo "gpu_run.sh: stopped at its time; go on with the same command" >&2
ls -la "$out"
