"""What the talker reads of clips: prepared once a clip, and the windows that a training batch draws from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.data.clip import Clip
from fedtalk.data.lips import OPENEST
from fedtalk.data.pixels import to_unit
from fedtalk.encoders.speech import frame_windows, lips_in, lips_network, speech_network
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import Backbone
from fedtalk.talker.masks import lower_face
from fedtalk.talker.mouth_looks import MouthLooks, sums_of
from fedtalk.talker.puppet import Puppet
from fedtalk.talker.quality import evidence, identity_encoder, mouth_probe
from fedtalk.talker.schedule import frame_noise
from fedtalk.training.module import Prepared


def cache_key(backbone: Backbone, looks: MouthLooks | None = None) -> str:
    """Changes whenever `prepare_clip` would give another result."""
    digest = hashlib.sha256()
    for network in (backbone.codec, mouth_probe(), speech_network(), lips_network(), identity_encoder()):
        for value in network.state_dict().values():
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    architecture = backbone.architecture
    speech = f"{architecture.speech}/{architecture.speech_path}"
    if looks is not None:
        digest.update(looks.to_bytes())
    return f"talker-11/{digest.hexdigest()[:16]}/{speech}/{architecture.size}/{backbone.codec.pack}"


@torch.no_grad()
def prepare_clip(backbone: Backbone, clip: Clip, device: torch.device, looks: MouthLooks | None = None) -> Prepared:
    """What training reads of a clip of F frames with R references; halves to save space.

    ``latents`` (F, C, h, w); by reference ``reference`` (R, C, h, w), ``reference_at`` (R,) the frame that it is, and moved to
    the eyes and lips of every frame: ``moved`` (R, F, C, h, w), and ``inside`` the same with the frame itself around what a dub
    replaces; ``mask`` (F, 1, h, w) of what a dub replaces; ``windows`` (F, T, D) of speech features; ``mouth`` (F, 2), ``eyes``
    (F, 2, 2) as shares of the frame; ``missing`` what the clip says of its person's looks (`sums_of`), of no length where
    lips aren't heard or looks are given; and of its own quality (`fedtalk.talker.quality.evidence`).

    Lips are half of what is seen and half of what is heard: when a picture is made, nothing is seen.

    Raises:
        ConfigurationError: its frames have another size than the backbone's.
    """
    size = backbone.architecture.size
    if clip.size != size:
        raise ConfigurationError(f"clip {dict(clip.info)}: frames are {clip.size} px, the backbone works at {size} px")
    sound, first = clip.surroundings()
    speech, part = torch.from_numpy(sound), slice(first, first + len(clip))
    windows = frame_windows(backbone.speech(speech), backbone.speech.per_frame)[part]
    told = heard(backbone, list(windows))
    openness = clip.openness if clip.openness is not None else mouth_probe().measure(clip.frames, clip.mouth, clip.eyes)
    seen = None if told is None else np.stack([OPENEST * openness, told[:, 1]], 1).astype(np.float32)
    lips = None if told is None or seen is None else (seen + told) / 2
    hidden, _ = lower_face(clip.eyes, size)
    moved, inside, stills = [], [], []
    missing = np.zeros(0, np.float32)
    for number, (reference, _) in enumerate(clip.references()):
        body = Puppet(reference)
        puppets = body.moved(clip.eyes, lips)
        if looks is not None and told is not None:
            puppets = looks.added(puppets, clip.eyes, told)
        elif seen is not None and not number:  # beside the first frame, as when a recording is dubbed
            missing = sums_of(body.moved(clip.eyes, seen), clip.frames, clip.eyes, seen)
        moved.append(encode(backbone, puppets, device))
        inside.append(encode(backbone, surrounded(puppets, clip.frames, hidden), device))
        stills.append(encode(backbone, reference.frame[None], device)[0])
    return {
        "latents": encode(backbone, clip.frames, device).half(),
        "moved": torch.stack(moved).half(),
        "inside": torch.stack(inside).half(),
        "reference": torch.stack(stills).half(),
        "reference_at": torch.tensor([at for _, at in clip.references()]),
        "mask": F.avg_pool2d(hidden, backbone.codec.factor).half(),
        "windows": windows.half(),
        "mouth": torch.from_numpy(clip.mouth / size).float(),
        "eyes": torch.from_numpy(clip.eyes / size).float(),
        "missing": torch.from_numpy(missing),
        **evidence(clip),
    }


def heard(backbone: Backbone, windows: Sequence[Tensor]) -> np.ndarray | None:
    """(F, 2) opening and width of the lips by speech windows (T, D) a frame; None where the backbone's front end does not say."""
    if backbone.architecture.speech != "shipped" or not len(windows):
        return None
    return lips_in(torch.stack(list(windows)))[:, :2].cpu().numpy().copy()


def surrounded(pictures: np.ndarray, frames: np.ndarray, hidden: Tensor) -> np.ndarray:
    """``pictures`` where ``hidden`` (F, 1, H, W) is 1, ``frames`` around them; all (F, H, W, 3) uint8."""
    return np.where(hidden[:, 0, :, :, None].numpy() > 0, pictures, frames)


@torch.no_grad()
def encode(backbone: Backbone, frames: np.ndarray, device: torch.device) -> Tensor:
    """(F, C, h, w): latents of frames (F, H, W, 3) uint8."""
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return torch.cat([backbone.codec.encode(to_unit(part).to(device)) for part in pictures.split(32)])


def draw_batch(
    clips: Sequence[Prepared],
    size: int,
    generator: torch.Generator,
    *,
    window: int,
    timesteps: int,
    dub_share: float,
    drop_audio: float,
    drop_reference: float,
    pure_noise: float = 0.0,
) -> Prepared:
    """Windows of clips with references from outside the window, tasks, drops, timesteps and noise.

    Args:
        clips: of one client, prepared.
        size: windows in the batch.
        generator: of all that is drawn.
        window: frames a window.
        timesteps: of the noise schedule.
        dub_share: share of windows that dub, the others are portraits.
        drop_audio: share of windows without audio.
        drop_reference: share of windows without reference.
        pure_noise: share of windows at the last timestep.

    Raises:
        ConfigurationError: a clip is too short.
    """

    def integer(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    rows = []
    for _ in range(size):
        clip = clips[integer(len(clips))]
        length = len(clip["latents"])
        if length <= window:
            raise ConfigurationError(
                f"a clip has {length} frames and the training window takes {window}: none is left for the reference; "
                "use longer clips"
            )
        start = integer(length - window + 1)
        which = _reference_outside(start, start + window, clip["reference_at"].tolist(), integer)
        part = slice(start, start + window)
        dub = float(torch.rand((), generator=generator)) < dub_share
        rows.append({
            "latents": clip["latents"][part].float(),
            "mask": clip["mask"][part].float() if dub else torch.ones_like(clip["mask"][part]).float(),
            "windows": clip["windows"][part].float(),
            "mouth": clip["mouth"][part],
            "eyes": clip["eyes"][part],
            "moved": clip["inside" if dub else "moved"][which][part].float(),
            "reference": clip["reference"][which].float(),
        })  # fmt: skip
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    batch["audio_present"] = torch.rand(size, generator=generator) >= drop_audio
    batch["reference_present"] = torch.rand(size, generator=generator) >= drop_reference
    batch["timestep"] = torch.randint(0, timesteps, (size,), generator=generator)
    if pure_noise:
        batch["timestep"][torch.rand(size, generator=generator) < pure_noise] = timesteps - 1
    batch["noise"] = frame_noise(tuple(batch["latents"].shape), generator)
    return batch


def _reference_outside(start: int, end: int, places: Sequence[int], draw: Callable[[int], int]) -> int:
    """Which reference a window gets: one drawn of those more than four frames away from it, or the farthest."""
    away = [max(start - at, at - end + 1) for at in places]
    far = [index for index, distance in enumerate(away) if distance > 4]
    return far[draw(len(far))] if far else away.index(max(away))
