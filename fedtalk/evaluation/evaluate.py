"""The table: what the trained talker makes of held-out clips, beside the controls that would expose it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedtalk.data.clip import Clip, Reference
from fedtalk.data.framing import align
from fedtalk.data.provenance import EDITED, GENERATED, Provenance
from fedtalk.data.source import ClipData
from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import ConfigurationError
from fedtalk.evaluation import metrics
from fedtalk.evaluation.contact_sheet import contact_sheet
from fedtalk.evaluation.openness import OpennessProbe, openness_probe
from fedtalk.evaluation.recognisers import Recogniser, default_recogniser
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.federation.module import copy_state, load_state
from fedtalk.federation.run_folder import personal_adapter
from fedtalk.privacy.ledger_report import shown_epsilons
from fedtalk.storage import write_json
from fedtalk.talker.adapters import adapter_parameters
from fedtalk.talker.masks import lower_face
from fedtalk.talker.module import Talker

log = logging.getLogger("fedtalk")


@dataclass(frozen=True)
class Case:
    """One held-out clip with what it is measured against."""

    client: str
    clip: Clip
    source: Clip
    """The first frame of the client's first training clip."""
    donor: Clip
    """A clip of the same length by somebody else, whose speech is swapped in."""

    @property
    def reference(self) -> Reference:
        return self.source.reference(0)


def evaluate(talker: Talker, data: ClipData, run_dir: Path, settings: EvaluationSettings) -> dict:
    """Measure the talker as it stands and write ``metrics.json``, ``contact_sheet.png`` and ``videos/`` to the run's folder.

    Returns:
        the content of ``metrics.json``: for each row (trained, personal, no_adapter, copy_reference, copy_moved, grey,
        swapped_audio, and truth and codec as ceilings) the means over clips of psnr and psnr_mouth (dB), ssim, mouth_corr,
        identity, flicker; ``portrait`` the same for the portrait task; ``comparisons`` with bootstrap intervals by client;
        ``privacy`` with the epsilons of a differentially private run, each with its adversary.
    """
    cases = list(_cases(data, settings))
    probe, recogniser = openness_probe(settings.openness), default_recogniser(real=settings.openness == "landmarks")
    states = _states(talker, run_dir, [case.client for case in cases])
    tasks = ("dub", "portrait") if settings.portrait else ("dub",)
    scores: dict[str, dict[str, list[dict[str, float]]]] = {task: {} for task in tasks}
    sheet: dict[str, list[tuple[str, np.ndarray]]] = {}
    for number, case in enumerate(cases):
        log.info("evaluating clip %d of %d (%s)", number + 1, len(cases), case.client)
        show = case.client not in sheet and len(sheet) < settings.videos
        for task in tasks:
            made = _rows(talker, case, states, task)
            for name, frames in made.items():
                scores[task].setdefault(name, []).append(_score(case, frames, name, probe, recogniser))
            if show:
                best = "personal" if "personal" in made else "trained"
                rows = sheet.setdefault(case.client, [("truth", case.clip.frames)])
                rows.append((f"{task}, {best}", made[best]))
                if task == "dub":
                    rows += [("swapped audio", made["swapped_audio"]), ("copy reference", made["copy_reference"])]
                _write_videos(
                    run_dir / "videos", case, task, made[best], made["swapped_audio"], _made(talker, task, best)
                )
    load_state(adapter_parameters(talker.backbone.denoiser.unet), states["trained"])
    contact_sheet(list(sheet.items()), run_dir / "contact_sheet.png")
    table = {name: _means(rows) for name, rows in scores["dub"].items()}
    result = {
        **table,
        "portrait": {name: _means(rows) for name, rows in scores.get("portrait", {}).items()},
        "comparisons": _comparisons(scores["dub"], [case.client for case in cases]),
        "about": {
            "clips": len(cases), "clients": len({case.client for case in cases}),
            "frames": [len(case.clip) for case in cases], "identity": recogniser.name, "openness": probe.name,
            "probe_error": {k: table["truth"][k] for k in ("mouth_corr", "mouth_error")},
        },
        "privacy": shown_epsilons(run_dir),
    }  # fmt: skip
    write_json(run_dir / "metrics.json", result)
    return result


def _cases(data: ClipData, settings: EvaluationSettings) -> Iterator[Case]:
    clients = data.evaluation_clients[: settings.clients]
    if len(clients) < 2:
        raise ConfigurationError(
            f"evaluation: expected at least two clients, one to speak with the other's voice, got {clients}; add clients to "
            "the data or raise evaluation.clients"
        )
    clips = {client: [source.load() for source in data.held_out_clips(client)[: settings.clips]] for client in clients}
    for position, client in enumerate(clients):
        reference = data.training_clips(client)[0].load()
        for index, clip in enumerate(clips[client]):
            other = clips[clients[(position + 1) % len(clients)]]
            donor = other[index % len(other)]
            length = min(len(clip), len(donor))
            # The first frame, as in training and in `fedtalk generate`.
            yield Case(client, clip.window(0, length), reference.window(0, 1), donor.window(0, length))


def _states(talker: Talker, run_dir: Path, clients: Iterable[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Adapter states by row: trained, no_adapter, and personal/CLIENT where the run has them."""
    parameters = adapter_parameters(talker.backbone.denoiser.unet)
    trained = copy_state(parameters)
    states = {
        "trained": trained,
        "no_adapter": {n: torch.zeros_like(v) if "lora_B" in n else v for n, v in trained.items()},
    }
    for client in sorted(set(clients)):
        folder = personal_adapter(run_dir, client)
        if folder.is_dir():
            talker.load_adapter(folder)
            states[f"personal/{client}"] = copy_state(parameters)
    return states


def _rows(talker: Talker, case: Case, states: dict[str, dict[str, torch.Tensor]], task: str) -> dict[str, np.ndarray]:
    """Generated frames and controls, by row."""
    clip, reference = case.clip, case.reference
    parameters = adapter_parameters(talker.backbone.denoiser.unet)

    def run(state: str, audio: np.ndarray) -> np.ndarray:
        load_state(parameters, states[state])
        speech = torch.from_numpy(audio)
        # A portrait is held as the truth is, else the two could not be compared.
        dub = task == "dub"
        stream = talker.dub(clip, reference, 0, speech) if dub else talker.portrait(speech, reference, 0, clip.eyes)
        return np.stack([frame.numpy() for frame in stream])

    own = f"personal/{case.client}"
    best = own if own in states else "trained"
    rows = {"trained": run("trained", case.clip.audio), "no_adapter": run("no_adapter", case.clip.audio)}
    if own in states:
        rows["personal"] = run(own, case.clip.audio)
    rows["swapped_audio"] = run(best, case.donor.audio)
    rows["copy_reference"] = np.repeat(reference.frame[None], len(clip), 0)
    rows["copy_moved"] = _copy_moved(clip, reference, task)
    rows["grey"] = np.full_like(clip.frames, 128)
    rows["truth"] = clip.frames
    rows["codec"] = talker.reconstruct(clip.frames)
    return rows


def _copy_moved(clip: Clip, reference: Reference, task: str) -> np.ndarray:
    """The reference with its eyes where the clip's are, set into the clip as a dubbed face would be: all that the talker
    is given about looks and pose, without any learning.
    """
    moved = align(reference.frame, reference.eyes, clip.eyes)
    if task == "portrait":
        return moved
    _, alpha = lower_face(clip.eyes, clip.size)
    blend = alpha.permute(0, 2, 3, 1).numpy()
    return np.round(blend * moved + (1 - blend) * clip.frames).astype(np.uint8)


def _score(case: Case, frames: np.ndarray, name: str, probe: OpennessProbe, recogniser: Recogniser) -> dict[str, float]:
    clip = case.clip
    some = slice(None, None, 4)  # embeddings are slow, and change little from frame to frame
    read = probe.measure(frames, clip.mouth, clip.eyes)
    score = {
        "psnr": metrics.psnr(clip.frames, frames),
        "ssim": metrics.ssim(clip.frames, frames),
        "psnr_mouth": metrics.psnr_mouth(clip.frames, frames, clip.mouth, clip.eyes),
        "identity": metrics.identity(
            recogniser,
            frames[some],
            clip.eyes[some],
            clip.mouth[some],
            case.source.frames,
            case.source.eyes,
            case.source.mouth,
        ),
        "flicker": metrics.flicker(clip.frames, frames),
    }
    if clip.openness is not None:
        score["mouth_corr"] = metrics.mouth_corr(read, clip.openness)
        score["mouth_error"] = float(np.abs(read - clip.openness).mean())
    if name == "swapped_audio" and case.donor.openness is not None:
        score["mouth_corr_donor"] = metrics.mouth_corr(read, case.donor.openness)
    return score


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = {name: None for row in rows for name in row}
    return {name: round(float(np.mean([row[name] for row in rows if name in row])), 4) for name in names}


def _comparisons(scores: dict[str, list[dict[str, float]]], clients: list[str]) -> dict:
    """Differences of mouth PSNR in dB with 95 % bootstrap intervals, resampled by client."""
    pairs = [
        ("personal", "no_adapter"),
        ("personal", "trained"),
        ("trained", "no_adapter"),
        ("personal", "copy_reference"),
        ("personal", "copy_moved"),
    ]
    result = {}
    for better, worse in pairs:
        if better in scores and worse in scores:
            a, b = (np.array([row["psnr_mouth"] for row in scores[name]]) for name in (better, worse))
            _, low, high = metrics.bootstrap_interval(a - b, clients)
            result[f"{better} - {worse}"] = {
                "psnr_mouth": round(float((a - b).mean()), 3),
                "interval": [round(low, 3), round(high, 3)],
            }
    return result


def _write_videos(
    folder: Path, case: Case, task: str, generated: np.ndarray, swapped: np.ndarray, made: Provenance
) -> None:
    if task == "portrait":
        _write_video(folder / f"{case.client}-portrait.mp4", case.clip.audio, generated, made)
        return
    beside = np.concatenate([case.clip.frames, generated], 2)
    _write_video(folder / f"{case.client}-truth-left-dubbed-right.mp4", case.clip.audio, beside, made)
    _write_video(folder / f"{case.client}-speaking-for-another.mp4", case.donor.audio, swapped, made)


def _made(talker: Talker, task: str, adapter: str) -> Provenance:
    return Provenance(GENERATED if task == "portrait" else EDITED, talker.fingerprint(), {adapter: 1.0})


def _write_video(path: Path, audio: np.ndarray, frames: np.ndarray, made: Provenance) -> None:
    with VideoWriter(path, audio=audio, scale=4, provenance=made) as writer:
        for frame in frames:
            writer.write(frame)


def write_predictions(talker: Talker, data: ClipData, run_dir: Path) -> list[Path]:
    """One video a client: truth on the left, dubbed with the client's personal adapter (else the trained one) on the right."""
    written = []
    parameters = adapter_parameters(talker.backbone.denoiser.unet)
    states = _states(talker, run_dir, data.clients)
    for client in data.clients:
        clip, reference = data.held_out_clips(client)[0].load(), data.training_clips(client)[0].load()
        load_state(parameters, states.get(f"personal/{client}", states["trained"]))
        frames = np.stack([frame.numpy() for frame in talker.dub(clip, reference.reference(0))])
        made = _made(talker, "dub", client if f"personal/{client}" in states else "trained")
        path = run_dir / "predictions" / f"{client}.mp4"
        _write_video(path, clip.audio, np.concatenate([clip.frames, frames], 2), made)
        written.append(path)
    load_state(parameters, states["trained"])
    return written


def print_table(result: dict) -> None:
    """The table as a person reads it."""
    from rich.console import Console
    from rich.table import Table

    columns = ["psnr", "ssim", "psnr_mouth", "mouth_corr", "mouth_corr_donor", "identity", "flicker"]
    console = Console(width=120)
    for title, rows in (("dub", result), ("portrait", result["portrait"])):
        table = Table(
            title=f"{title}: means over {result['about']['clips']} held-out clips, identity by {result['about']['identity']}"
        )
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for name, row in rows.items():
            if isinstance(row, dict) and "psnr" in row:
                table.add_row(name, *(f"{row[column]:.3f}" if column in row else "" for column in columns))
        if table.row_count:
            console.print(table)
    for row in result["privacy"]:
        epsilon = row.get("prv", row.get("exact"))
        console.print(
            f"privacy: epsilon {'without bound' if epsilon is None else f'{epsilon:.3f}'} {row['against']}",
            markup=False,
        )
    for name, difference in result["comparisons"].items():
        low, high = difference["interval"]
        console.print(
            f"psnr_mouth {name}: {difference['psnr_mouth']:+.2f} dB, 95 % interval [{low:+.2f}, {high:+.2f}] over clients"
        )
