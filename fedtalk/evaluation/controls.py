"""What is generated of a held-out clip, and the controls beside it that would expose a talker that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedtalk.data.clip import Clip, Reference
from fedtalk.data.framing import align
from fedtalk.data.source import ClipData
from fedtalk.errors import ConfigurationError
from fedtalk.evaluation.settings import Control, EvaluationSettings
from fedtalk.run_folder import personal_adapter
from fedtalk.talker.adapters import adapter_parameters
from fedtalk.talker.masks import lower_face
from fedtalk.talker.module import Talker
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.training.module import copy_state, load_state


@dataclass(frozen=True)
class AdapterState:
    """What an adapter's folder holds."""

    factors: dict[str, Tensor]
    looks: MouthLooks | None = None

    def put_on(self, talker: Talker) -> None:
        """Make the talker's adapter this one."""
        load_state(adapter_parameters(talker.backbone.denoiser.unet), self.factors)
        talker.looks = self.looks


States = Mapping[str, AdapterState]
"""By row: trained, no_adapter, and personal/CLIENT."""


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


@dataclass(frozen=True)
class Row:
    """Frames of one row of the table, and the speech that they answer."""

    frames: np.ndarray
    """(F, H, W, 3) uint8."""
    audio: np.ndarray
    donor: Clip | None = None
    silent: bool = False


def cases(data: ClipData, settings: EvaluationSettings) -> Iterator[Case]:
    """Held-out clips of the clients that tables are made of.

    Raises:
        ConfigurationError: fewer than two clients.
    """
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


def adapter_states(talker: Talker, run_dir: Path, clients: Iterable[str]) -> dict[str, AdapterState]:
    """The states that rows are generated with; personal ones where the run has them."""
    parameters = adapter_parameters(talker.backbone.denoiser.unet)
    trained = copy_state(parameters)
    states = {
        "trained": AdapterState(trained),
        "no_adapter": AdapterState({n: torch.zeros_like(v) if "lora_B" in n else v for n, v in trained.items()}),
    }
    for client in sorted(set(clients)):
        folder = personal_adapter(run_dir, client)
        if folder.is_dir():
            talker.load_adapter(folder)
            states[f"personal/{client}"] = AdapterState(copy_state(parameters), talker.looks)
    return states


def rows(talker: Talker, case: Case, states: States, task: str, controls: Collection[Control]) -> dict[str, Row]:
    """Generated frames and controls of a case.

    Args:
        talker: its adapter is overwritten.
        case: a held-out clip.
        states: of `adapter_states`.
        task: ``dub`` or ``portrait``.
        controls: which are made.

    Returns:
        trained, no_adapter, personal (where there is one), the controls (swapped_audio and silence with the best adapter there
        is) and truth.
    """
    clip, reference = case.clip, case.reference

    def run(state: str, audio: np.ndarray) -> np.ndarray:
        states[state].put_on(talker)
        speech = torch.from_numpy(audio)
        # A portrait is held as the truth is, else the two could not be compared.
        dub = task == "dub"
        stream = talker.dub(clip, reference, 0, speech) if dub else talker.portrait(speech, reference, 0, clip.eyes)
        return np.stack([frame.numpy() for frame in stream])

    def own(frames: np.ndarray) -> Row:
        return Row(frames, clip.audio)

    personal = f"personal/{case.client}"
    best = personal if personal in states else "trained"
    made = {"trained": own(run("trained", clip.audio)), "no_adapter": own(run("no_adapter", clip.audio))}
    if personal in states:
        made["personal"] = own(run(personal, clip.audio))
    silence = np.zeros_like(clip.audio)
    makers: dict[Control, Callable[[], Row]] = {
        "swapped_audio": lambda: Row(run(best, case.donor.audio), case.donor.audio, case.donor),
        "silence": lambda: Row(run(best, silence), silence, silent=True),
        "copy_reference": lambda: own(np.repeat(reference.frame[None], len(clip), 0)),
        "copy_moved": lambda: own(copy_moved(clip, reference, task)),
        "grey": lambda: own(np.full_like(clip.frames, 128)),
        "codec": lambda: own(talker.reconstruct(clip.frames)),
    }
    made |= {name: make() for name, make in makers.items() if name in controls}
    made["truth"] = own(clip.frames)
    return made


def copy_moved(clip: Clip, reference: Reference, task: str) -> np.ndarray:
    """The reference with its eyes where the clip's are, set into the clip as a dubbed face would be: all that the talker
    is given about looks and pose, without any learning. (F, H, W, 3) uint8.
    """
    moved = align(reference.frame, reference.eyes, clip.eyes)
    if task == "portrait":
        return moved
    _, alpha = lower_face(clip.eyes, clip.size)
    blend = alpha.permute(0, 2, 3, 1).numpy()
    return np.round(blend * moved + (1 - blend) * clip.frames).astype(np.uint8)
