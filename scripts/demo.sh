#!/usr/bin/env bash
# The main job on made-up speakers, from nothing: install, federated training, evaluation, videos. Safe to run again:
# finished rounds are not repeated.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment ""
run=runs/demo
echo "== federated training: private SynthTalk clients, ISFA aggregation (log and checkpoints in $run)"
.venv/bin/fedtalk fit --config configs/isfa.yaml --config configs/demo.yaml --ckpt_path last
echo "== evaluation on clips that no training saw, beside the controls"
.venv/bin/fedtalk test --config configs/isfa.yaml --config configs/demo.yaml --ckpt_path last
cat <<EOF

Where to look:
  $run/contact_sheet.png   truth, generated, copy of the reference, swapped audio
  $run/videos/             mp4 with sound: truth beside dubbed, the same face speaking for another, portraits
  $run/metrics.json        the table above
  $run/adapters/           the released and the personal adapters, in peft's format
  .venv/bin/tensorboard --logdir $run
EOF
