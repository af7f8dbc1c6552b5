#!/usr/bin/env python
"""How much hangs on the reference picture: mouth PSNR of the dubbed clip and of the copied picture, for five references.

    python scripts/reference_choice.py runs/people        (a folder in which `fedtalk fit` made personal adapters)

References are frames at five places of a client's first training clip. A picture with a closed mouth is hard to beat where
the held-out clip is silent, one with an open mouth is easy; the mean over the five says which way it goes on the whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import yaml
from jsonargparse import ArgumentParser

from fedtalk.data.source import ClipData
from fedtalk.evaluation import metrics
from fedtalk.talker.module import Talker
from fedtalk.training.module import FederatedModule

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the clip."""


def main(run: Path) -> None:
    parser = ArgumentParser()
    parser.add_argument("--model", type=FederatedModule)
    parser.add_argument("--data", type=ClipData)
    config = yaml.safe_load((run / "config.yaml").read_text())
    made = parser.instantiate_classes(parser.parse_object({name: config[name] for name in ("model", "data")}))
    talker, data = made.model.eval(), made.data
    assert isinstance(talker, Talker)
    rows = []
    for client in data.evaluation_clients:
        talker.load_adapter(run / "adapters" / "personal" / client)
        source = data.training_clips(client)[0].load()
        for held_out in data.held_out_clips(client):
            clip, row = held_out.load(), []
            for place in PLACES:
                reference = source.reference(round(place * (len(source) - 1)))
                dubbed = np.stack([frame.numpy() for frame in talker.dub(clip, reference)])
                copied = np.repeat(reference.frame[None], len(clip), 0)
                row += [metrics.psnr_mouth(clip.frames, frames, clip.mouth, clip.eyes) for frames in (dubbed, copied)]
            rows.append(row)
            print(client, *(f"{dub:.1f}/{copy:.1f}" for dub, copy in zip(row[::2], row[1::2], strict=True)), flush=True)
    mean = np.mean(rows, 0)
    print("mean  ", *(f"{dub:.2f}/{copy:.2f}" for dub, copy in zip(mean[::2], mean[1::2], strict=True)))
    print(
        f"dubbed {mean[::2].mean():.2f} dB, copied {mean[1::2].mean():.2f} dB, over {len(rows)} clips and five references"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "config.yaml").is_file():
        sys.exit("usage: reference_choice.py RUN   (a folder in which `fedtalk fit` made personal adapters)")
    main(Path(sys.argv[1]))
