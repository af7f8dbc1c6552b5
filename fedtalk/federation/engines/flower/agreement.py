"""What server and sites must have in common before a round may begin, as text that can be compared and shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from operator import itemgetter
from typing import Any

import torch

from fedtalk.errors import ConfigurationError
from fedtalk.federation.federation import Federation
from fedtalk.privacy.settings import Privacy
from fedtalk.training.module import FederatedModule
from fedtalk.version import __version__


def agreement_of(federation: Federation) -> dict[str, str]:
    """By topic, what this side has; equal on all sides, or the run doesn't begin.

    Placement (accelerator, precision, threads, folders, a client's deadline) and data are each site's own and not in it.
    """
    module = federation.module
    exchanged = module.exchanged_parameters()
    return {
        "fedtalk version": __version__,
        "model.backbone": module.fingerprint(),
        "model.adapter": json.dumps({name: list(value.shape) for name, value in exchanged.items()}),
        "frozen parameters": _frozen_digest(module, exchanged),
        "trainer.aggregation": _object(federation.aggregation),
        "trainer.privacy": _text(federation.privacy),
        "trainer.local": _text(replace(federation.local, deadline_seconds=None)),
        "trainer.cohort": _object(federation.cohort),
        "trainer.rounds": str(federation.rounds),
        "trainer.minimum_clients": str(federation.minimum_clients),
        "trainer.most_held_out": str(federation.most_held_out),
        "seed_everything": str(federation.seed),
    }


def differences(server: Mapping[str, Any], site: Mapping[str, str]) -> list[str]:
    """``topic: server ..., site ...`` for each topic on which the two differ.

    >>> differences({"trainer.rounds": "3"}, {"trainer.rounds": "4"})
    ["trainer.rounds: server '3', site '4'"]
    """
    return [
        f"{topic}: server {_short(server.get(topic))}, site {_short(site.get(topic))}"
        for topic in sorted(server.keys() | site.keys())
        if server.get(topic) != site.get(topic)
    ]


def check_sealed(privacy: Privacy | None) -> Privacy:
    """The privacy, which across organisations has secure aggregation: nothing else keeps a client's update from the server.

    Raises:
        ConfigurationError: it is off.
    """
    if privacy is None or not privacy.secure_aggregation:
        got = "no privacy" if privacy is None else "secure_aggregation: false"
        raise ConfigurationError(
            "trainer.privacy: across organisations an update that isn't masked by its client reaches the server in the "
            f"clear: expected privacy with secure_aggregation: true, got {got}. Set it in the config of all sides; within one "
            "organisation `fedtalk fit` does without."
        )
    return privacy


def _object(value: object) -> str:
    """Class and fields: a rule of another class differs, whatever its fields are called."""
    fields = {name: _text(part) for name, part in vars(value).items()}
    return f"{type(value).__module__}.{type(value).__qualname__} {json.dumps(fields, sort_keys=True)}"


def _text(value: Any) -> str:
    return json.dumps(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value, sort_keys=True)


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 160 else f"{text[:150]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _frozen_digest(module: FederatedModule, exchanged: Mapping[str, Any]) -> str:
    """SHA-256 over all that a round doesn't exchange: frozen LoRA factors are drawn, and must be drawn alike."""
    trained = {id(parameter) for parameter in exchanged.values()}
    digest = hashlib.sha256()
    for name, value in sorted([*module.named_parameters(), *module.named_buffers()], key=itemgetter(0)):
        if id(value) not in trained:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
