"""Turn a run's checkpoint into a small network as it ships, measure it, and write its section of the model card.

    python scripts/export_small.py runs/identity/checkpoints/last.ckpt identity fedtalk/weights/identity.safetensors

What is measured are people that no training saw: public 1000 and up, and private 0 and up (a shifted distribution),
whose four clips are drawn anew.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import tempfile
from pathlib import Path

import torch
import yaml

from fedtalk.data.source import PreparedCache
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.encoders.face_module import FaceModule
from fedtalk.encoders.identity import IdentityModule
from fedtalk.encoders.mouth_probe import MouthProbeModule
from fedtalk.encoders.sync import SyncModule
from fedtalk.federation.checkpoint import load_checkpoint
from fedtalk.randomness import torch_generator
from fedtalk.storage import atomic_path
from fedtalk.training.module import load_state

KINDS: dict[str, type[FaceModule]] = {
    "identity": IdentityModule,
    "sync": SyncModule,
    "mouth_probe": MouthProbeModule,
}
CARD = "README-small.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()

    module = KINDS[arguments.kind]()
    saved = load_checkpoint(arguments.checkpoint, module)
    load_state(module.exchanged_parameters(), saved["server"]["state"])
    module.network.save(arguments.out)
    # What is measured is what ships: 16-bit weights read back.
    module.network = type(module.network).load(arguments.out)
    metrics = {
        "unseen public people": measure(module, SynthTalkData(40, 2, 2, group="public", first=1000, centralised=True)),
        "private people": measure(module, SynthTalkData(16, 2, 2, group="private", centralised=True)),
    }
    section = describe(arguments.kind, module, arguments.out, saved["round"], metrics)
    print(section)
    write_section(arguments.out.parent / CARD, arguments.kind, section)


def measure(module: FaceModule, data: SynthTalkData) -> dict[str, float]:
    """Held-out metrics on all clips of people that the module did not learn from."""
    sources = [*data.training_clips("public"), *data.held_out_clips("public")]
    with tempfile.TemporaryDirectory() as folder:
        clips = PreparedCache(Path(folder)).get(module, sources)
    with torch.no_grad():
        return module.held_out_metrics(clips, torch_generator(0, "export"))


def describe(kind: str, module: FaceModule, out: Path, rounds: int, metrics: dict[str, dict[str, float]]) -> str:
    """The network's section of the model card, in Markdown."""
    config = yaml.safe_load(Path("configs", f"{kind}.yaml").read_text(encoding="utf-8"))
    local, data = config["trainer"]["local"], config["data"]["init_args"]
    steps, planned = rounds * local["steps"], config["trainer"]["rounds"] * local["steps"]
    length = f"{steps}" if steps == planned else f"stopped after {steps} of {planned}"
    parameters = sum(value.numel() for value in module.network.parameters())
    names = list(next(iter(metrics.values())))
    table = [f"| {' | '.join(['measured on', *names])} |", "| --- " * (len(names) + 1) + "|"]
    table += [
        f"| {people} | {' | '.join(f'{values[name]:.4f}' for name in names)} |" for people, values in metrics.items()
    ]
    return "\n".join(
        [
            f"## {kind}",
            "",
            f"`{type(module.network).__module__}.{type(module.network).__name__}`, {parameters:,} parameters, "
            f"`{out.name}` ({out.stat().st_size / 1e3:.0f} kB, 16-bit).",
            "",
            f"- Data: SynthTalk, {data['speakers']} public speakers, {data['clips']} clips of {data['frames']} frames "
            "each; no real person.",
            f"- Training: `fedtalk fit --config configs/{kind}.yaml`, {length} steps of batch {local['batch_size']}.",
            f"- Export: `python scripts/export_small.py runs/{kind}/checkpoints/last.ckpt {kind} "
            f"fedtalk/weights/{out.name}`, {datetime.date.today()}, {platform.machine()}, torch {torch.__version__}.",
            "",
            *table,
            "",
        ]
    )


def write_section(card: Path, kind: str, section: str) -> None:
    """Replace the section of ``kind`` in the card, or add it."""
    text = card.read_text(encoding="utf-8") if card.exists() else "# Small networks\n\n"
    old = re.compile(rf"^## {kind}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    text = (
        old.sub(lambda _: section, text)
        if old.search(text)
        else text + ("" if text.endswith("\n\n") else "\n") + section
    )
    with atomic_path(card) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
