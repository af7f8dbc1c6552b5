"""What a single update reveals, against what the server gets to see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtalk.data.source import ClipData
from fedtalk.federation.vector import flatten
from fedtalk.privacy.audit.appearance import likeness, mean_face
from fedtalk.privacy.audit.audited_rounds import Setup
from fedtalk.privacy.audit.gallery import Profile, profile_of
from fedtalk.privacy.audit.opened_run import OpenedRun
from fedtalk.privacy.audit.reidentification import RankSummary, match_gradients, rank_of_right, summarise_ranks
from fedtalk.privacy.audit.views import views_of
from fedtalk.training.local import train_locally
from fedtalk.training.module import copy_state, load_state


@dataclass(frozen=True)
class Reconstruction:
    """Both attacks on every view."""

    identity: dict[str, RankSummary]
    """By view: whose update is it (`reidentification`)."""
    appearance: dict[str, RankSummary]
    """By view: whom does the revealed face look like (`appearance`)."""
    pictures: dict[str, np.ndarray]
    """(3, H, W) in [0, 1] of the first client: truth, the backbone's own mean face, and that with each view's update."""


def audit_updates(
    run: OpenedRun,
    setup: Setup,
    others: ClipData,
    *,
    targets: int,
    decoys: int,
    seed: int,
    on_step: Callable[[], None] | None = None,
) -> Reconstruction:
    """Attack first-round updates of the run's clients.

    The attacker knows clips of every candidate that were not trained on. Targets' updates are made as the run makes them,
    by local training from the common start, which is when updates say most.

    Args:
        run: the run.
        setup: of its mechanism.
        others: people who took no part; the decoys.
        targets: clients attacked, at most.
        decoys: people beside the right one, at most.
        seed: of the attacker's windows and noise.
        on_step: called after each person studied and each update made.
    """
    module, start = run.module, run.initial
    tick = on_step or (lambda: None)
    names = run.data.clients[:targets]
    strangers = [profile_of_person(run, others, person, seed, tick) for person in others.clients[:decoys]]
    right = {client: profile_of_person(run, run.data, client, seed, tick) for client in names}
    updates = {}
    for client in names:
        load_state(module.exchanged_parameters(), start)
        with module.local_form() as common_form:
            train_locally(
                run.federation.fabric(), module, run.prepared(run.data, client), run.trainer.local,
                run.trainer.seed, client, 0, run.trainer.rounds,
            )  # fmt: skip
            trained = common_form(copy_state(module.exchanged_parameters()))
        updates[client] = flatten(trained) - flatten(start)
        tick()
    common = np.mean([stranger.gradient for stranger in strangers], axis=0)
    usual = torch.stack([stranger.latent for stranger in strangers]).mean(0)
    identity, appearance = {}, {}
    revealed: dict[str, Tensor] = {}
    base = mean_face(module, start, None, seed)
    for view, by_client in views_of(setup, len(run.data.clients), updates, seed).items():
        ranks, looks = {}, {}
        for client, seen in by_client.items():
            # Only an update's direction counts: what is masked would blow up the network, a sum is many updates long.
            scaled = seen * (float(np.linalg.norm(updates[client])) / max(float(np.linalg.norm(seen)), 1e-30))
            known = right[client]
            scores = match_gradients(scaled, known.gradient, [s.gradient for s in strangers], common)
            ranks[client] = rank_of_right(*scores)
            difference = mean_face(module, start, scaled, seed) - base
            revealed.setdefault(view, difference)
            looks[client] = rank_of_right(*likeness(difference, known.latent, [s.latent for s in strangers], usual))
        identity[view] = summarise_ranks(ranks, len(strangers) + 1)
        appearance[view] = summarise_ranks(looks, len(strangers) + 1)
    pictures = {"truth": right[names[0]].latent, "backbone alone": base}
    pictures |= {view: base + difference for view, difference in revealed.items()}
    load_state(module.exchanged_parameters(), run.released)
    return Reconstruction(identity, appearance, {name: _picture(run, latent) for name, latent in pictures.items()})


def steps_of(targets: int, decoys: int) -> int:
    """Calls of ``on_step``."""
    return 2 * targets + decoys


def profile_of_person(run: OpenedRun, data: ClipData, person: str, seed: int, tick: Callable[[], None]) -> Profile:
    """The attacker studies held-out clips of a person."""
    known = profile_of(run.module, run.initial, run.prepared(data, person, held_out=True), seed)
    tick()
    return known


@torch.no_grad()
def _picture(run: OpenedRun, latent: Tensor) -> np.ndarray:
    frame = run.module.backbone.codec.decode(latent[None].to(run.module.device))[0]
    return ((frame.clamp(-1, 1) + 1) / 2).cpu().numpy()
