#!/usr/bin/env bash
# Real people, from raw videos to a table: prepare, federated training, evaluation on the end of each file (never trained on), and
# one generated video.
#   bash scripts/real_clips.sh RAW_VIDEOS [LEFT_OUT...]     one folder a person in RAW_VIDEOS; people named LEFT_OUT take no part
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
raw=$(realpath "${1:?usage: real_clips.sh RAW_VIDEOS [LEFT_OUT...] (one folder a person)}")
shift
environment ""
run=runs/people
.venv/bin/fedtalk prepare "$raw" $run/clients --clip_seconds null
for person in "$@"; do
  mkdir -p $run/left_out
  mv "$run/clients/$person" $run/left_out/
done
configs=(--config configs/isfa.yaml --config configs/people.yaml)
.venv/bin/fedtalk fit "${configs[@]}" --ckpt_path last
.venv/bin/fedtalk test "${configs[@]}" --ckpt_path last
if [ $# -gt 0 ]; then
  .venv/bin/fedtalk test "${configs[@]}" --ckpt_path last --data.root $run/left_out --data.unreliable 0
fi
person=$(basename "$(find $run/adapters/personal -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)")
video=$(find -L "$raw/$person" -type f | sort | head -n 1)
.venv/bin/fedtalk generate --video "$video" --audio "$video" --adapter "$run/adapters/personal/$person" --out "$run/dubbed.mp4"
echo "table: $run/metrics.json   pictures: $run/contact_sheet.png   videos: $run/videos, $run/dubbed.mp4"
