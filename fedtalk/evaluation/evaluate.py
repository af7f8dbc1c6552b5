"""The table: what the trained talker makes of held-out clips, beside the controls that would expose it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.provenance import EDITED, GENERATED, Provenance
from fedtalk.data.source import ClipData
from fedtalk.data.video_writer import VideoWriter
from fedtalk.encoders.sync import SyncScorer
from fedtalk.errors import ArtifactError
from fedtalk.evaluation import metrics, pretrained
from fedtalk.evaluation.contact_sheet import contact_sheet
from fedtalk.evaluation.controls import Case, Row, adapter_states, cases, rows
from fedtalk.evaluation.landmarks import LandmarkReader
from fedtalk.evaluation.openness import openness_probe
from fedtalk.evaluation.reading import GroundTruth, Instruments, Reading
from fedtalk.evaluation.recognisers import default_recogniser
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.evaluation.specs import METRICS, score
from fedtalk.privacy.ledger_report import shown_epsilons
from fedtalk.storage import write_json
from fedtalk.talker.module import Talker

log = logging.getLogger("fedtalk")

COMPARED = ("psnr_mouth", "mouth_corr", "identity")
PAIRS = (
    ("personal", "no_adapter"),
    ("personal", "trained"),
    ("trained", "no_adapter"),
    ("personal", "copy_reference"),
    ("personal", "copy_moved"),
    ("no_adapter", "copy_moved"),
)

Scores = dict[str, list[dict[str, float]]]
"""By row, for each clip in the order of the cases, measures by name."""


def evaluate(talker: Talker, data: ClipData, run_dir: Path, settings: EvaluationSettings) -> dict[str, Any]:
    """Measure the talker as it stands and write ``metrics.json``, ``contact_sheet.png`` and ``videos/`` to the run's folder.

    The latter two show ``settings.videos`` clients; with 0 neither is written.

    Returns:
        the content of ``metrics.json``: for each row of `fedtalk.evaluation.controls.rows` the means over clips of the measures
        of `fedtalk.evaluation.specs.METRICS`; ``portrait`` the same for the portrait task; ``comparisons`` differences with
        bootstrap intervals by client; ``clips`` every clip's own scores; ``about`` instruments, units and what was
        unavailable; ``privacy`` the epsilons of a differentially private run, each with its adversary.
    """
    found = list(cases(data, settings))
    synthtalk = settings.openness == "synthtalk"
    instruments = Instruments(
        openness_probe(settings.openness), default_recogniser(real=not synthtalk), LandmarkReader(),
        SyncScorer.shipped().eval() if synthtalk else None,
    )  # fmt: skip
    states = adapter_states(talker, run_dir, [case.client for case in found])
    tasks = ("dub", "portrait") if settings.portrait else ("dub",)
    scores: dict[str, Scores] = {task: {} for task in tasks}
    sets: dict[str, dict[str, list[Reading]]] = {task: {} for task in tasks}
    sheet: dict[str, list[tuple[str, np.ndarray]]] = {}
    for number, case in enumerate(found):
        log.info("evaluating clip %d of %d (%s)", number + 1, len(found), case.client)
        show = case.client not in sheet and len(sheet) < settings.videos
        reference = GroundTruth(case.clip, case.source, instruments)
        for task in tasks:
            made = rows(talker, case, states, task, settings.controls)
            for name, row in made.items():
                reading = Reading(reference, row.frames, row.audio, row.donor, row.silent)
                scores[task].setdefault(name, []).append(score(reading))
                sets[task].setdefault(name, []).append(reading)
            if show:
                _show(sheet.setdefault(case.client, [("truth", case.clip.frames)]), task, made)
                _write_videos(run_dir / "videos", case, task, made, talker)
    states["trained"].put_on(talker)
    if sheet:
        contact_sheet(list(sheet.items()), run_dir / "contact_sheet.png")
    clients = [case.client for case in found]
    table = {task: {name: _means(rows_) for name, rows_ in scores[task].items()} for task in tasks}
    for task in tasks:
        for name, readings in sets[task].items():
            table[task][name] |= _of_sets(readings)
    result = {
        **table["dub"],
        "portrait": table.get("portrait", {}),
        "comparisons": _comparisons(scores["dub"], clients),
        "clips": [
            {"client": client, **{task: {name: rows_[number] for name, rows_ in scores[task].items()} for task in tasks}}
            for number, client in enumerate(clients)
        ],
        "about": {
            "clips": len(found), "clients": len(set(clients)), "frames": [len(case.clip) for case in found],
            "identity": instruments.recogniser.name, "openness": instruments.probe.name,
            "landmarks": instruments.landmarks.name, "sync": None if instruments.sync is None else instruments.sync.name,
            "probe_error": {
                k: table["dub"]["truth"].get(k) if all(case.clip.openness is not None for case in found) else None
                for k in ("mouth_corr", "mouth_distance")
            },
            "measures": {spec.name: {"unit": spec.unit, "goal": spec.goal, "source": spec.source} for spec in METRICS},
            "unavailable": pretrained.unavailable(),
        },
        "privacy": shown_epsilons(run_dir),
    }  # fmt: skip
    write_json(run_dir / "metrics.json", result)
    return result


def _of_sets(readings: Sequence[Reading]) -> dict[str, float]:
    """Measures of all clips together."""
    truth = np.concatenate([reading.reference.embeddings for reading in readings])
    made = np.concatenate([reading.embeddings for reading in readings])
    name = f"frechet_{readings[0].reference.instruments.recogniser.name}"
    found = {name: metrics.frechet_distance(made, truth)} if len(made) > 1 else {}
    found["mouth_corr_pooled"] = metrics.pooled_mouth_corr([(r.openness, r.true_openness) for r in readings])
    found |= pretrained.set_scores([r.frames for r in readings], [r.clip.frames for r in readings])
    return {measure: round(value, 4) for measure, value in found.items()}


def _means(clips: list[dict[str, float]]) -> dict[str, float]:
    names = {name: None for row in clips for name in row}
    return {name: round(float(np.mean([row[name] for row in clips if name in row])), 4) for name in names}


def _comparisons(scores: Scores, clients: list[str]) -> dict[str, Any]:
    """Differences of rows with 95 % bootstrap intervals, resampled by client."""
    result: dict[str, Any] = {}
    for better, worse in PAIRS:
        if better not in scores or worse not in scores:
            continue
        entry = {}
        for name in COMPARED:
            if all(name in row for row in scores[better] + scores[worse]):
                a, b = (np.array([row[name] for row in scores[which]]) for which in (better, worse))
                mean, low, high = metrics.bootstrap_interval(a - b, clients)
                entry[name] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
        result[f"{better} - {worse}"] = entry
    return result


def _show(sheet: list[tuple[str, np.ndarray]], task: str, made: dict[str, Row]) -> None:
    best = "personal" if "personal" in made else "trained"
    sheet.append((f"{task}, {best}", made[best].frames))
    if task == "dub":
        controls = ("swapped_audio", "silence", "copy_reference")
        sheet += [(name.replace("_", " "), made[name].frames) for name in controls if name in made]


def _write_videos(folder: Path, case: Case, task: str, made: dict[str, Row], talker: Talker) -> None:
    name = "personal" if "personal" in made else "trained"
    best, provenance = made[name], _provenance(talker, task, name)
    if task == "portrait":
        _write_video(folder / f"{case.client}-portrait.mp4", best.audio, best.frames, provenance)
        return
    beside = np.concatenate([case.clip.frames, best.frames], 2)
    _write_video(folder / f"{case.client}-truth-left-dubbed-right.mp4", best.audio, beside, provenance)
    if (swapped := made.get("swapped_audio")) is not None:
        _write_video(folder / f"{case.client}-speaking-for-another.mp4", swapped.audio, swapped.frames, provenance)


def _provenance(talker: Talker, task: str, adapter: str) -> Provenance:
    return Provenance(GENERATED if task == "portrait" else EDITED, talker.fingerprint(), {adapter: 1.0})


def _write_video(path: Path, audio: np.ndarray, frames: np.ndarray, provenance: Provenance) -> None:
    with VideoWriter(path, audio=audio, scale=max(1, 256 // frames.shape[1]), provenance=provenance) as writer:
        for frame in frames:
            writer.write(frame)


def write_predictions(talker: Talker, data: ClipData, run_dir: Path) -> list[Path]:
    """One video a client: truth on the left, dubbed with the client's personal adapter (else the trained one) on the right.

    Raises:
        ArtifactError: there are no clients with held-out clips.
    """
    written = []
    states = adapter_states(talker, run_dir, data.clients)
    for client in data.clients:
        clip, reference = data.held_out_clips(client)[0].load(), data.training_clips(client)[0].load()
        states.get(f"personal/{client}", states["trained"]).put_on(talker)
        made = np.stack([frame.numpy() for frame in talker.dub(clip, reference.reference(0))])
        path = run_dir / "predictions" / f"{client}.mp4"
        provenance = _provenance(talker, "dub", client if f"personal/{client}" in states else "trained")
        _write_video(path, clip.audio, np.concatenate([clip.frames, made], 2), provenance)
        written.append(path)
    states["trained"].put_on(talker)
    if not written:
        raise ArtifactError("predict: the data have no clients; expected at least one")
    return written
