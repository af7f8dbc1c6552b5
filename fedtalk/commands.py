"""Commands around training: `fedtalk prepare`, `generate`, `audit` and `doctor`. Their signatures are their command lines."""

from __future__ import annotations

import json as json_text
from pathlib import Path

import torch

from fedtalk.data.prepare import prepare as prepare_clients
from fedtalk.errors import ConfigurationError, MediaError
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.talker.backbone import SHIPPED


def prepare(
    raw: str,
    clients: str,
    layout: str = "folder",
    size: int = 64,
    clip_seconds: float | None = 2.0,
    finder: str = "dlib",
    detect_every: int = 5,
    overwrite: bool = False,
) -> None:
    """Turn a folder of ordinary videos into aligned clips, one folder a person.

    Args:
        raw: folder with one folder a person, each with videos in any format that ffmpeg reads.
        clients: folder to write; also gets rejects.csv, which says what was left out and why.
        layout: how RAW is laid out: folder (one folder a person) or grid (GRID corpus).
        size: height and width of the clips in pixels.
        clip_seconds: length of a clip; null for whole stretches with one face throughout.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        detect_every: find the face in every n-th frame and follow it in between.
        overwrite: make clips again that are there already.
    """
    report = prepare_clients(
        raw, clients, layout=layout, size=size, clip_seconds=clip_seconds, finder=finder, detect_every=detect_every,
        overwrite=overwrite,
    )  # fmt: skip
    print(report)


def generate(
    audio: str | None = None,
    out: str | None = None,
    portrait: str | None = None,
    video: str | None = None,
    batch: str | None = None,
    adapter: str | None = None,
    run: str | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.5,
    steps: int = 10,
    stride: int = 4,
    seed: int = 0,
    scale: int = 4,
    keep_picture: bool = False,
    when_short: str = "loop",
    mark: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "32",
    finder: str = "dlib",
    threads: int | None = None,
) -> None:
    """Make a talking-head video of any length: a picture or a video of a person and speech in, a speaking face out.

    Args:
        audio: speech, any file with sound that ffmpeg reads.
        out: mp4 to write; as long as the speech (in whole frames), and marked as synthetic.
        portrait: picture of the person; the whole face is drawn from it.
        video: instead of a portrait, a video of the person whose mouth is to follow the speech (dubbing); all else in it stays
            as it is, at its own resolution and frame rate.
        batch: instead of audio, out and portrait or video, a CSV table with columns of these names, and by choice adapter and
            seed; a line a video. Files that are there already are not made again.
        adapter: a person's name, or an adapter folder; several with weights as anna:0.7,bert:0.3; none uses the backbone alone.
        run: run whose adapters names are looked for in; all runs below runs/ by default.
        backbone: 'shipped' or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        steps: denoising steps.
        stride: frames between sampling windows of 8 frames; smaller is smoother and slower.
        seed: of the noise.
        scale: factor by which a portrait's frames are enlarged in the video.
        keep_picture: put the speaking face back into the whole portrait, at the portrait's own resolution.
        when_short: where the speech is longer than the video: loop (forth and back), hold (the last picture) or refuse.
        mark: draw "AI-generated" into a corner of each frame.
        overwrite: with batch, make files again that are there.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: 32, bf16 or 16.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    from fedtalk.talker.production.files import Order, make_batch, make_file

    if threads:
        torch.set_num_threads(threads)
    order = Order(
        adapter=adapter, run=run, backbone=backbone, guidance=guidance, steps=steps, stride=stride, seed=seed, finder=finder,
        when_short=when_short, keep_picture=keep_picture, device=device, precision=precision, scale=scale, mark=mark,
    )  # fmt: skip
    if batch is not None:
        if any(value is not None for value in (audio, out, portrait, video)):
            raise ConfigurationError(
                "generate: --batch TABLE names audio, out, portrait and video itself; leave these out"
            )
        outcome = make_batch(Path(batch).expanduser(), order, overwrite)
        print(outcome)
        if outcome.failed:
            raise MediaError(f"{len(outcome.failed)} of the videos in {batch} could not be made; the reasons are above")
        return
    if audio is None or out is None:
        raise ConfigurationError("generate: give --audio SPEECH and --out VIDEO.mp4, or --batch TABLE.csv")
    print(make_file(audio, out, portrait, video, order))


def app(
    run: str | None = None,
    backbone: str = SHIPPED,
    port: int = 7860,
    guidance: float = 1.5,
    steps: int = 10,
    stride: int = 4,
    scale: int = 4,
    when_short: str = "loop",
    device: str = "auto",
    precision: str = "32",
    finder: str = "dlib",
    threads: int | None = None,
) -> None:
    """Open a local page: a picture or a video, speech, a person's adapter; a video that plays. Nothing leaves this machine.

    Args:
        run: run whose adapters can be chosen; those of all runs below runs/ by default.
        backbone: 'shipped' or the folder of the backbone that the adapters were trained on.
        port: on this machine, the only one that is answered.
        guidance: weight of the audio.
        steps: denoising steps that the page begins with.
        stride: frames between sampling windows.
        scale: factor by which a portrait's frames are enlarged.
        when_short: where the speech is longer than the video: loop, hold or refuse.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: 32, bf16 or 16.
        finder: face finder: dlib, yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    from fedtalk.talker.production.files import Order
    from fedtalk.talker.production.page import serve

    if threads:
        torch.set_num_threads(threads)
    order = Order(
        run=run, backbone=backbone, guidance=guidance, steps=steps, stride=stride, finder=finder, when_short=when_short,
        device=device, precision=precision, scale=scale,
    )  # fmt: skip
    serve(order, port)


def consent(clients: str, runs: str | None = None) -> None:
    """Say who agreed to what, and delete what runs keep of those who took it back.

    Args:
        clients: clients folder made by `fedtalk prepare`.
        runs: a run, or a folder of several, from which the adapters of people who took consent back are deleted.
    """
    from fedtalk.data.consent import forget, overview

    lines, gone = overview(Path(clients).expanduser())
    print("\n".join(lines))
    if runs is not None:
        deleted = forget(Path(runs).expanduser(), gone)
        print(f"{len(deleted)} folders deleted below {runs}")


def doctor(json: bool = False, cache_dir: str = ".cache/fedtalk") -> None:
    """Print what this machine can run, a line each: ok, or missing with what to do. Nothing is downloaded.

    Args:
        json: print one JSON list instead of lines.
        cache_dir: folder of prepared clips, which must be writable.
    """
    from fedtalk.planning.doctor import as_dicts, examine  # imports optional packages to see whether they work

    findings = examine(cache_dir)
    print(json_text.dumps(as_dicts(findings)) if json else "\n".join(map(str, findings)))


def audit(
    run: str,
    clients: int = AuditSettings.clients,
    canaries: int = AuditSettings.canaries,
    rounds: int = AuditSettings.rounds,
    method: str = AuditSettings.method,
    targets: int = AuditSettings.targets,
    decoys: int = AuditSettings.decoys,
    confidence: float = AuditSettings.confidence,
    delta: float | None = AuditSettings.delta,
    non_members: str | None = None,
    seed: int = AuditSettings.seed,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Attack a finished run and say what the attacks prove about its privacy, beside what its ledger claims.

    Three attacks: membership of clients in the released adapter; canary clients through the run's own aggregation, for a
    lower bound on epsilon with its confidence; and what a single update gives away in the clear, masked, summed and
    noised. Prints tables; writes audit/audit.json and audit/audit.png into the run's folder. Ends with an error if the
    bound exceeds the ledger's epsilon.

    Args:
        run: folder of a finished `fedtalk fit`.
        clients: people who took no part, drawn for the membership attack (SynthTalk), and most clients it is tried on.
        canaries: canary clients in all; more find more, at proportional cost; 0 leaves them out.
        rounds: most rounds of a canary run.
        method: one_run (many canaries a run, Steinke et al. 2023) or repeated (one canary a run, a threshold test).
        targets: clients whose single updates are attacked; 0 leaves that out.
        decoys: people among whom the right client must be found.
        confidence: of each lower bound.
        delta: at which epsilon is bounded and the ledger is read; by default 1e-5, or the run's own if that is smaller.
        non_members: clients folder of people who took no part; needed where the run's data are not SynthTalk.
        seed: of coins, cohorts, noise levels and windows.
        threads: CPU threads; the config's by default.
        json: print one JSON line in place of the tables.
    """
    from fedtalk.privacy.audit.audit import audit_run

    settings = AuditSettings(
        clients=clients, canaries=canaries, rounds=rounds, method=method, targets=targets, decoys=decoys,
        confidence=confidence, delta=delta, seed=seed,
    )  # fmt: skip
    audit_run(Path(run), settings, non_members, threads, json)
