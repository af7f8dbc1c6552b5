"""A compiled network trains as the plain one does, wherever a placement lets it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.errors import ConfigurationError
from fedtalk.planning.preconditions import check_rules
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import Prepared, copy_state, load_state
from fedtalk.training.placement import Placement, Placements
from fedtalk.training.together import train_together

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # raised by torch when it imports itself
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"),
]

FABRIC = Fabric(accelerator="cpu", devices=1)
LOCAL = LocalTraining(steps=2, batch_size=2, learning_rate=2e-4)


@pytest.fixture(autouse=True)
def graphs() -> Iterator[Callable[[], int]]:
    """How many graphs this process has compiled since the test began."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


def _apart(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Of two updates, in units of the first one's norm."""
    between = torch.cat([(one[name] - other[name]).flatten() for name in start]).norm()
    return float(between / torch.cat([(one[name] - start[name]).flatten() for name in start]).norm())


@pytest.mark.parametrize(
    ("processes", "backend"),
    [
        (1, "aot_eager"),
        pytest.param(1, "inductor", marks=pytest.mark.slow),
        pytest.param(2, "inductor", marks=pytest.mark.slow),
    ],
)
def test_every_process_compiles_once_and_learns_the_same(
    parts, tmp_path: Path, processes: int, backend: str, request: pytest.FixtureRequest
) -> None:
    """In this process, and in two that take each client together by ddp."""
    if processes > 1:
        request.getfixturevalue("local_ray")
    people = {name: parts.Person((number / 3, 0.5, 0.1)) for number, name in enumerate(("anna", "bert", "cora"))}
    kind = "ddp" if processes > 1 else "single"
    ends, start = [], copy_state(parts.Pull().exchanged_parameters())
    (told := tmp_path / "told").mkdir()
    for module, compiled in ((parts.Pull(), False), (parts.CompiledPull(told, backend), True)):
        placed = Placement(kind, processes, compile=compiled)
        fit = parts.trainer(tmp_path / str(compiled), [ISFA(gamma=1.0)], default_placement=placed)
        fit.fit(module, parts.People(people))
        ends.append(copy_state(module.exchanged_parameters()))
    assert _apart(*ends, start) < 1e-5
    found = {path.name: path.read_text() for path in told.iterdir()}
    assert list(found.values()) == ["1"] * processes
    assert (str(os.getpid()) in found) == (processes == 1)


@pytest.mark.slow
def test_a_talkers_clients_learn_the_same_and_its_network_is_compiled_once(
    make_talker: Callable[..., Talker], prepared: list[Prepared], graphs: Callable[[], int]
) -> None:
    talker = make_talker()
    parameters = talker.exchanged_parameters()
    start, placed = copy_state(parameters), Placement(together=2, compile=True)
    clips = {"anna": prepared[:2], "bert": prepared[2:]}
    plain = train_together(FABRIC, talker, clips, LOCAL, 0, 0, 1)
    assert graphs() == 0
    for _ in range(2):
        compiled = train_together(FABRIC, talker, clips, LOCAL, 0, 0, 1, placement=placed)
        assert all(_apart(plain[client], compiled[client], start) < 1e-4 for client in clips)
        assert graphs() == 1
    # A batch of fewer clients has another shape and runs as it is; so does what is not training.
    train_together(FABRIC, talker, {"anna": prepared[:2]}, LOCAL, 0, 0, 1, placement=placed)
    load_state(parameters, start)
    train_locally(FABRIC, talker, prepared[:2], LOCAL, 0, "anna", 0, 1, placement=placed)
    talker.reliability(prepared[:1], prepared[:1], torch.Generator().manual_seed(0))
    assert graphs() == 1


def test_what_cant_be_compiled_is_refused(
    parts, tmp_path: Path, make_talker: Callable[..., Talker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"placement\.compile: fsdp .*expected compile: false"):
        Placement("fsdp", 2, compile=True)
    placed = Placement(compile=True)
    with pytest.raises(
        ConfigurationError, match=r"trainer\.default_placement: Pull does not say what of it to compile"
    ):
        parts.trainer(tmp_path, [ISFA(gamma=1.0)], default_placement=placed).fit(
            parts.Pull(), parts.People({"anna": parts.Person()})
        )
    monkeypatch.setenv("CXX", "no-such-c++")
    with pytest.raises(
        ConfigurationError, match=r"trainer\.default_placement\.compile: .*expected no-such-c\+\+ on the path"
    ):
        check_rules(Placements(placed), ["anna"], 4, False, torch.device("cpu"))
