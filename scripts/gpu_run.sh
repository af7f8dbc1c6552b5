#!/usr/bin/env bash
# Minutes of a GPU on a machine without a network: the tests marked gpu, then two backbones in bf16 side by side for the rest of the time,
# resumable, a checkpoint every 200 steps: the wide one from new weights (configs/backbone_wide.yaml), and the shipped one trained
# further (configs/backbone_mouth.yaml). Compare what comes back with what ships: scripts/people_table.py --backbone OUT/wide/backbone.
#   bash scripts/gpu_run.sh --pack [WHEEL...]     here, beforehand: fills gpu/ (ignored by git) with what the machine lacks, 60 MB at
#                                                 most: people's clips and the packages named (wheels for its Python). Of PyAV a
#                                                 package of that name is enough; the landmarks need face_recognition_models, 100 MB:
#                                                 a gpu/setup.sh of your own, sourced first, can bring it in a smaller form.
#   bash scripts/gpu_run.sh [SECONDS] [OUT]       there; 480 seconds, gpu/out
# PYTHON there: python3 by default. JOBS: processes that prepare clips, 12. TRAIN: which of them, "wide further"; BACKBONE: which one
# is trained further, shipped or a folder. DATA: further options of
# the data ("pieces=100 speakers=8"), FIT: further options of `fedtalk fit`. More about the parts: scripts/gpu_people.py,
# prepare_pieces.py, gpu_train.py (--help).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD
if [ "${1:-}" = --pack ]; then
  shift
  python=.venv/bin/python
  rm -rf gpu/people gpu/wheels && mkdir -p gpu/people gpu/wheels
  "$python" scripts/gpu_people.py pack runs/people128_open gpu/people
  [ $# -eq 0 ] || cp "$@" gpu/wheels/
  du -sm gpu
  [ "$(du -sm gpu | cut -f1)" -le 60 ] || { echo "gpu_run.sh: gpu/ is larger than 60 MB: leave packages out that the machine has" >&2; exit 1; }
  exit
fi
python=${PYTHON:-python3}
seconds=${1:-480} out=${2:-gpu/out} site=${SITE:-gpu/site}
end=$((SECONDS + seconds))
mkdir -p "$out" "$site"
for wheel in gpu/wheels/*.whl; do
  [ ! -e "$wheel" ] || "$python" -m zipfile -e "$wheel" "$site"
done
[ ! -e gpu/setup.sh ] || source gpu/setup.sh
export PYTHONPATH=$site:$PWD OMP_NUM_THREADS=1
"$python" scripts/gpu_people.py unpack gpu/people gpu/clips
codec=fedtalk/weights/backbone/codec cache=gpu/cache
wide=(--config configs/backbone_wide.yaml --config configs/gpu.yaml)
further=(--config configs/backbone_mouth.yaml --config configs/gpu.yaml)
read -ra settings <<< "${DATA:-}"
"$python" scripts/prepare_pieces.py "${wide[@]}" --people gpu/clips --codec $codec --cache $cache --jobs "${JOBS:-12}" \
  --set "${settings[@]}" > "$out/pieces.log" 2>&1 &
pieces=$!
"$python" -m pytest -q -rs -p no:cacheprovider -m gpu tests/talker/test_gpu.py 2>&1 | tee "$out/tests.log" ||
  echo "gpu_run.sh: tests marked gpu failed, see above" >&2
wait $pieces || { cat "$out/pieces.log"; exit 1; }
tail -n 1 "$out/pieces.log"
read -ra fit <<< "${FIT:-} ${settings[*]/#/--data.}"
usual=(--data.people gpu/clips --trainer.cache_dir $cache "${fit[@]}")
train() {  # train NAME OPTIONS: into OUT/NAME
  "$python" scripts/gpu_train.py $((end - SECONDS - 10)) "$out/$1" -- "${@:2}" > "$out/$1.log" 2>&1 ||
    echo "gpu_run.sh: $1 failed" >&2
  tail -n 4 "$out/$1.log"
}
case " ${TRAIN:-wide further} " in *" wide "*) train wide "${wide[@]}" --model.architecture.codec $codec "${usual[@]}" & ;; esac
case " ${TRAIN:-wide further} " in *" further "*) train further "${further[@]}" --model.backbone "${BACKBONE:-shipped}" "${usual[@]}" & ;; esac
wait
ls -la "$out"/*/backbone || true
