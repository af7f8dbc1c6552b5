"""What the talker reads of clips: prepared once a clip, and the windows that a training batch draws from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.data.clip import Clip, Reference
from fedtalk.data.framing import align
from fedtalk.data.pixels import to_unit
from fedtalk.encoders.speech import frame_windows
from fedtalk.errors import ConfigurationError
from fedtalk.federation.module import Prepared
from fedtalk.talker.backbone import Backbone
from fedtalk.talker.masks import lower_face
from fedtalk.talker.schedule import frame_noise


def cache_key(backbone: Backbone) -> str:
    """Changes whenever `prepare_clip` would give another result."""
    digest = hashlib.sha256()
    for value in backbone.codec.state_dict().values():
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    architecture = backbone.architecture
    speech = f"{architecture.speech}/{architecture.speech_path}"
    return f"talker-2/{digest.hexdigest()[:16]}/{speech}/{architecture.size}/{backbone.codec.pack}"


@torch.no_grad()
def prepare_clip(backbone: Backbone, clip: Clip, device: torch.device) -> Prepared:
    """Latents of the frames and of the masked frames, mask, audio features, mouth and eyes; halves to save space.

    Two frames, the first and the last, serve as references: each is moved to where the eyes of every frame are.

    Raises:
        ConfigurationError: its frames have another size than the backbone's.
    """
    size = backbone.architecture.size
    if clip.size != size:
        raise ConfigurationError(f"clip {dict(clip.info)}: frames are {clip.size} px, the backbone works at {size} px")
    frames = to_unit(torch.from_numpy(clip.frames).permute(0, 3, 1, 2)).to(device)
    hidden, _ = lower_face(clip.eyes, size)
    hidden = hidden.to(device)
    latents = torch.cat([backbone.codec.encode(part) for part in frames.split(32)])
    masked = torch.cat([backbone.codec.encode(part) for part in (frames * (1 - hidden)).split(32)])
    moved = torch.stack([moved_reference(backbone, clip.reference(at), clip.eyes, device) for at in (0, -1)])
    return {
        "latents": latents.half(),
        "masked": masked.half(),
        "moved": moved.half(),
        "mask": F.avg_pool2d(hidden, backbone.codec.factor).half(),
        "features": backbone.speech(torch.from_numpy(clip.audio)).half(),
        "mouth": torch.from_numpy(clip.mouth / size),
        "eyes": torch.from_numpy(clip.eyes / size),
    }


@torch.no_grad()
def moved_reference(backbone: Backbone, reference: Reference, eyes: np.ndarray, device: torch.device) -> Tensor:
    """(F, C, h, w): latents of the reference with its eyes where ``eyes`` (F, 2, 2) has them."""
    pictures = torch.from_numpy(align(reference.frame, reference.eyes, eyes)).permute(0, 3, 1, 2)
    return torch.cat([backbone.codec.encode(to_unit(part).to(device)) for part in pictures.split(32)])


def draw_batch(
    clips: Sequence[Prepared],
    size: int,
    generator: torch.Generator,
    *,
    window: int,
    features_per_frame: int,
    timesteps: int,
    dub_share: float,
    drop_audio: float,
    drop_reference: float,
) -> Prepared:
    """Windows of clips with references from outside the window, tasks, drops, timesteps and noise.

    Args:
        clips: of one client, prepared.
        size: windows in the batch.
        generator: of all that is drawn.
        window: frames a window.
        features_per_frame: of the speech.
        timesteps: of the noise schedule.
        dub_share: share of windows that dub, the others are portraits.
        drop_audio: share of windows without audio.
        drop_reference: share of windows without reference.

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
        which = _reference_outside(start, start + window, length, integer(2))
        part = slice(start, start + window)
        rows.append({
            "latents": clip["latents"][part].float(),
            "masked": clip["masked"][part].float(),
            "mask": clip["mask"][part].float(),
            "windows": frame_windows(clip["features"].float(), features_per_frame)[part],
            "mouth": clip["mouth"][part],
            "eyes": clip["eyes"][part],
            "moved": clip["moved"][which][part].float(),
            "reference": clip["latents"][-which].float(),
        })  # fmt: skip
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    portrait = torch.rand(size, generator=generator) >= dub_share
    batch["masked"][portrait] = 0.0
    batch["mask"][portrait] = 1.0
    batch["audio_present"] = torch.rand(size, generator=generator) >= drop_audio
    batch["reference_present"] = torch.rand(size, generator=generator) >= drop_reference
    batch["timestep"] = torch.randint(0, timesteps, (size,), generator=generator)
    batch["noise"] = frame_noise(tuple(batch["latents"].shape), generator)
    return batch


def _reference_outside(start: int, end: int, length: int, drawn: int) -> int:
    """Which reference a window gets, 0 (the clip's first frame) or 1 (its last): the one drawn, if that lies outside the
    window and four frames away from it, else the one farther away.
    """
    away = (start, length - end)
    return drawn if away[drawn] > 4 else int(away[1] > away[0])
