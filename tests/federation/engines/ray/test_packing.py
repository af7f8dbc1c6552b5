"""What workers are sent: all of the federation that they need, frozen parameters without a copy, and nothing of the server's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.ray.packing import pack
from fedtalk.federation.federation import Federation
from fedtalk.privacy.settings import Privacy

pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def _all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the test's small modules too, all but single numbers."""
    monkeypatch.setattr("fedtalk.federation.engines.ray.packing.LEAST_BYTES", 8)


@pytest.fixture
def federation(worker_parts: Any, tmp_path: Path) -> Callable[..., Federation]:
    """One of client anna, around a module."""

    def make(module: Any, **settings: Any) -> Federation:
        trainer = worker_parts.trainer(tmp_path, [ISFA(gamma=1.0)], seed=3, most_held_out=2, **settings)
        return trainer.connect(module, worker_parts.People({"anna": worker_parts.Person()}), "fit")

    return make


def test_frozen_parameters_are_read_where_they_lie_and_all_else_is_a_copy(
    worker_parts: Any, federation: Callable[..., Federation]
) -> None:
    module = worker_parts.Pull()
    frozen = module.net[0].weight
    module.net[0].bias = nn.Parameter(module.net[0].bias.to(torch.bfloat16), requires_grad=False)
    packed = pack(federation(module))
    assert sorted(len(array) for array in packed.frozen) == [8 * 2, 8 * 3 * 4]
    for array in packed.frozen:
        array.flags.writeable = False  # as the object store gives it back
    opened = packed.open()
    for name, value in module.state_dict().items():
        found = opened.module.state_dict()[name]
        assert found.dtype == value.dtype and torch.equal(found, value)
        assert opened.module.get_parameter(name).requires_grad == module.get_parameter(name).requires_grad
    assert opened.module.net[0].weight.data_ptr() == frozen.data_ptr()
    with torch.no_grad():
        for value in opened.module.exchanged_parameters().values():
            value.add_(1.0)
    assert not torch.equal(opened.module.net[2].weight, module.net[2].weight)
    assert (opened.seed, opened.most_held_out, opened.data.clients) == (3, 2, ["anna"])


def test_one_parameter_under_two_names_stays_one(worker_parts: Any, federation: Callable[..., Federation]) -> None:
    module = worker_parts.Pull()
    module.also = module.net[0].weight
    opened = pack(federation(module)).open().module
    assert opened.also is opened.net[0].weight


def test_other_arrays_can_be_written_to(worker_parts: Any, federation: Callable[..., Federation]) -> None:
    module = worker_parts.Pull()
    module.table, module.buffer = np.arange(5000.0), torch.zeros(5000)
    opened = pack(federation(module)).open().module
    opened.table[0], opened.buffer[0] = 7.0, 7.0
    assert module.table[0] == 0.0 == module.buffer[0]


def test_nothing_of_the_servers_is_sent(worker_parts: Any, federation: Callable[..., Federation]) -> None:
    """Neither how updates are weighed nor what is promised, nor the trainer, its monitors and the seals of rounds."""
    whole = federation(worker_parts.Pull(), privacy=Privacy(noise_multiplier=0.5, delta=1e-3), validate_every=0)
    packed = pack(whole)
    for secret in (b"ISFA", b"Privacy", b"Rounds", b"FederatedTrainer", b"TensorBoard", b"Ledger"):
        assert secret not in packed.content, secret
    opened = packed.open()
    assert opened.privacy is None and type(opened.aggregation).__name__ == "FedAvg" and opened.seed == whole.seed


def test_where_the_main_process_works_workers_do(
    worker_parts: Any, federation: Callable[..., Federation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = pack(federation(worker_parts.Pull()))
    monkeypatch.chdir("/")
    packed.open()
    assert os.getcwd() == str(tmp_path)


def test_what_cant_be_sent_is_told_before_any_work(worker_parts: Any, tmp_path: Path) -> None:
    module = worker_parts.Pull()
    module.file = (tmp_path / "open").open("w")
    trainer = worker_parts.trainer(tmp_path, workers=2)
    try:
        with pytest.raises(
            ConfigurationError, match=r"trainer.workers: model and data are sent to the workers, and PicklingError"
        ):
            trainer.fit(module, worker_parts.People({"anna": worker_parts.Person()}))
    finally:
        module.file.close()
