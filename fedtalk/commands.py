"""Commands around training: `fedtalk prepare`, `generate`, `audit` and `doctor`. Their signatures are their command lines."""

from __future__ import annotations

import itertools
import json as json_text
import logging
from pathlib import Path

import torch

from fedtalk.data.clip import SAMPLES_PER_FRAME, Reference
from fedtalk.data.media import read_audio, read_image
from fedtalk.data.prepare import prepare as prepare_clients
from fedtalk.data.prepare import prepare_portrait, prepare_video
from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import ConfigurationError, MediaError
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.module import Talker

log = logging.getLogger("fedtalk")


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
    audio: str,
    out: str,
    portrait: str | None = None,
    video: str | None = None,
    adapter: str | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.5,
    sampling_steps: int = 10,
    stride: int = 4,
    seed: int = 0,
    scale: int = 4,
    finder: str = "dlib",
    threads: int | None = None,
) -> None:
    """Make a talking-head video of any length: a portrait and speech in, a speaking face with sound out.

    Args:
        audio: speech, any file with sound that ffmpeg reads.
        out: mp4 to write; exactly as long as the speech (in whole frames of 1/25 s).
        portrait: picture of the person; the whole face is drawn from it.
        video: instead of a portrait, a video of the person whose mouth is to follow the speech (dubbing).
        adapter: personal adapter folder, for instance RUN/adapters/personal/PERSON; none uses the backbone alone.
        backbone: 'shipped' or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        sampling_steps: denoising steps.
        stride: frames between sampling windows of 8 frames; smaller is smoother and slower.
        seed: of the noise.
        scale: factor by which frames are enlarged in the video.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    if (portrait is None) == (video is None):
        raise ConfigurationError("generate: give either --portrait PICTURE or --video VIDEO")
    if threads:
        torch.set_num_threads(threads)
    sound = read_audio(audio)
    count = len(sound) // SAMPLES_PER_FRAME
    if count < 1:
        raise MediaError(f"{audio}: {len(sound) / 16_000:.3f} s of sound; expected at least one frame (0.04 s)")
    sound = sound[: count * SAMPLES_PER_FRAME]
    talker = Talker(backbone, guidance=guidance, sampling_steps=sampling_steps, stride=stride)
    if adapter is not None:
        talker.load_adapter(Path(adapter))
    talker.eval()
    size = talker.backbone.architecture.size
    speech = torch.from_numpy(sound)
    if portrait is not None:
        picture, eyes, _ = prepare_portrait(read_image(portrait), size, finder)
        frames = talker.portrait(speech, Reference(picture, eyes), seed)
    else:
        clip = prepare_video(str(video), size, finder)
        if len(clip) < count:
            raise MediaError(
                f"{video}: {len(clip)} frames, the speech needs {count}; give a longer video or shorter speech"
            )
        clip = clip.window(0, count)
        frames = talker.dub(clip, clip.reference(0), seed, speech)
    with VideoWriter(out, audio=sound, scale=scale) as writer:
        for index, frame in enumerate(itertools.islice(frames, count)):
            writer.write(frame.numpy())
            if (index + 1) % 250 == 0:
                log.info("%d of %d frames", index + 1, count)
    print(f"wrote {out}: {count} frames, {count / 25:.2f} s")


def doctor(json: bool = False, cache_dir: str = ".cache/fedtalk") -> None:
    """Print what this machine can run, a line each: ok, or missing with what to do. Nothing is downloaded.

    Args:
        json: print one JSON list instead of lines.
        cache_dir: folder of prepared clips, which must be writable.
    """
    from fedtalk.planning.doctor import as_dicts, examine  # imports optional packages to see whether they work

    findings = examine(cache_dir)
    print(json_text.dumps(as_dicts(findings)) if json else "\n".join(map(str, findings)))


def ledger(folder: str, json: bool = False) -> None:
    """Print what was spent, on what, and against whom.

    Args:
        folder: of a differentially private run.
        json: print one JSON line instead of tables.
    """
    from fedtalk.privacy.ledger_report import print_report, run_report

    report = run_report(Path(folder))
    if json:
        print(json_text.dumps(report))
    else:
        print_report(report)


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
    """Attack a finished run, measure what its engine does, and hold both against what its ledger claims.

    Three attacks: membership of clients in the released adapter; canary clients through the engine's own rounds, for a
    lower bound on epsilon with its confidence; and what a single update gives away in the clear, masked, summed and
    noised. While the canaries play, noise, clipping, cohorts and charges are measured. Prints tables; writes audit/audit.json
    and audit/audit.png into the run's folder. Ends with an error if the engine doesn't do what the ledger accounts for or the
    bound exceeds the ledger's epsilon; says "inconclusive" where the canaries could not have found that.

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
