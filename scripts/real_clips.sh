#!/usr/bin/env bash
# Real clips, from raw videos to a table: prepare, federated training, evaluation on the last second of each file (never
# trained on), and one generated video.
#   bash scripts/real_clips.sh RAW_VIDEOS          one folder a person in RAW_VIDEOS
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
raw=$(realpath "${1:?usage: real_clips.sh RAW_VIDEOS (one folder a person)}")
environment ""
run=runs/grid
.venv/bin/fedtalk prepare "$raw" $run/clients --clip_seconds null
.venv/bin/fedtalk fit --config configs/isfa.yaml --config configs/grid.yaml --ckpt_path last
.venv/bin/fedtalk test --config configs/isfa.yaml --config configs/grid.yaml --ckpt_path last
person=$(basename "$(find $run/clients -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)")
video=$(find -L "$raw/$person" -type f | sort | head -n 1)
.venv/bin/fedtalk generate --video "$video" --audio "$video" --adapter "$run/adapters/personal/$person" --out "$run/dubbed.mp4"
echo "table: $run/metrics.json   pictures: $run/contact_sheet.png   videos: $run/videos, $run/dubbed.mp4"
