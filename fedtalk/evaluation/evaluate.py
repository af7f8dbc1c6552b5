"""The table: what the trained talker makes of held-out clips, beside the controls that would expose it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.source import ClipData
from fedtalk.encoders.sync import SyncScorer
from fedtalk.errors import ArtifactError
from fedtalk.evaluation import metrics, pretrained
from fedtalk.evaluation.controls import adapter_states, cases, rows
from fedtalk.evaluation.landmarks import LandmarkReader
from fedtalk.evaluation.openness import openness_probe
from fedtalk.evaluation.reading import GroundTruth, Instruments, Reading
from fedtalk.evaluation.recognisers import default_recogniser
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.evaluation.shown import provenance_of, show, worst_clips, write_video
from fedtalk.evaluation.specs import METRICS, score
from fedtalk.evaluation.syncnet import syncnet
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

Scores = Mapping[str, Mapping[int, dict[str, float]]]
"""By row and number of the case, measures by name; a client without a personal adapter has no case in that row."""


def evaluate(talker: Talker, data: ClipData, run_dir: Path, settings: EvaluationSettings) -> dict[str, Any]:
    """Measure the talker as it stands and write ``metrics.json``, ``contact_sheet.png`` and ``videos/`` to the run's folder.

    The latter two show a clip of each of the ``settings.videos`` clients that came out worst; with 0 neither is written.

    Returns:
        the content of ``metrics.json``: for each row of `fedtalk.evaluation.controls.rows` the means over clips of the measures
        of `fedtalk.evaluation.specs.METRICS`; ``portrait`` the same for the portrait task; ``comparisons`` differences with
        bootstrap intervals by client; ``clips`` every clip's own scores; ``about`` instruments, units, rows that not all clips
        have and what was unavailable; ``privacy`` the epsilons of a differentially private run, each with its adversary.
    """
    found = list(cases(data, settings))
    synthtalk = settings.openness == "synthtalk"
    instruments = Instruments(
        openness_probe(settings.openness), default_recogniser(real=not synthtalk), LandmarkReader(),
        SyncScorer.shipped().eval() if synthtalk else None, syncnet(),
    )  # fmt: skip
    states = adapter_states(talker, run_dir, [case.client for case in found])
    tasks = ("dub", "portrait") if settings.portrait else ("dub",)
    scores: dict[str, dict[str, dict[int, dict[str, float]]]] = {task: {} for task in tasks}
    readings: dict[str, dict[str, dict[int, Reading]]] = {task: {} for task in tasks}
    for number, case in enumerate(found):
        log.info("evaluating clip %d of %d (%s)", number + 1, len(found), case.client)
        reference = GroundTruth(case.clip, case.source, instruments)
        for task in tasks:
            for name, row in rows(talker, case, states, task, settings.controls).items():
                reading = Reading(reference, row.frames, row.audio, row.donor, row.silent)
                scores[task].setdefault(name, {})[number] = score(reading)
                readings[task].setdefault(name, {})[number] = reading
    states["trained"].put_on(talker)
    clients = [case.client for case in found]
    if shown := worst_clips(scores["dub"], clients)[: settings.videos]:
        show(found, shown, readings, talker, run_dir)
    table = {task: {name: _means(list(one.values())) for name, one in scores[task].items()} for task in tasks}
    for task in tasks:
        for name, by_case in readings[task].items():
            table[task][name] |= _of_sets(list(by_case.values()))
    result = {
        **table["dub"],
        "portrait": table.get("portrait", {}),
        "comparisons": _comparisons(scores["dub"], clients),
        "clips": [
            {"client": client, **{
                task: {name: one[number] for name, one in scores[task].items() if number in one} for task in tasks
            }}
            for number, client in enumerate(clients)
        ],
        "about": {
            "clips": len(found), "clients": len(set(clients)), "frames": [len(case.clip) for case in found],
            "identity": instruments.recogniser.name, "openness": instruments.probe.name,
            "landmarks": instruments.landmarks.name, "sync": None if instruments.sync is None else instruments.sync.name,
            "sync_held_out": None if instruments.sync is None else instruments.sync.held_out_figures(),
            "probe_error": {
                k: table["dub"]["truth"].get(k) if all(case.clip.openness is not None for case in found) else None
                for k in ("mouth_corr", "mouth_distance")
            },
            "fewer_clips": {name: len(one) for name, one in scores["dub"].items() if len(one) < len(found)},
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
    return {measure: _rounded(value) for measure, value in found.items()}


def _means(clips: list[dict[str, float]]) -> dict[str, float]:
    names = {name: None for row in clips for name in row}
    return {name: _rounded(float(np.mean([row[name] for row in clips if name in row]))) for name in names}


def _rounded(value: float) -> float:
    """To a millionth: coarser, and the small differences of a sweep's seeds would seem all the same."""
    return round(value, 6)


def _comparisons(scores: Scores, clients: list[str]) -> dict[str, Any]:
    """Differences of rows over the clips that have both, with 95 % bootstrap intervals, resampled by client."""
    result: dict[str, Any] = {}
    for better, worse in PAIRS:
        if better not in scores or worse not in scores:
            continue
        entry = {}
        common = sorted(scores[better].keys() & scores[worse].keys())
        whose = [clients[number] for number in common]
        for name in COMPARED:
            if len(set(whose)) > 1 and all(name in scores[row][number] for row in (better, worse) for number in common):
                a, b = (np.array([scores[row][number][name] for number in common]) for row in (better, worse))
                mean, low, high = metrics.bootstrap_interval(a - b, whose)
                entry[name] = {"mean": _rounded(mean), "low": _rounded(low), "high": _rounded(high)}
        if entry:
            result[f"{better} - {worse}"] = entry
    return result


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
        provenance = provenance_of(talker, "dub", client if f"personal/{client}" in states else "trained")
        write_video(path, clip.audio, np.concatenate([clip.frames, made], 2), provenance)
        written.append(path)
    states["trained"].put_on(talker)
    if not written:
        raise ArtifactError("predict: the data have no clients; expected at least one")
    return written
