"""Any sequence of fit, kill, resume and copy: what is printed is never below an independent log of all releases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.privacy import ledger as ledger_module
from fedtalk.privacy import ledger_record
from fedtalk.privacy.charges import Charges
from fedtalk.privacy.ledger import Ledger

FOLDERS, NUMBERS = st.sampled_from("abc"), st.integers(0, 40)
STEPS = st.one_of(
    st.tuples(st.just("copy"), FOLDERS, FOLDERS),
    st.tuples(st.just("put_aside"), NUMBERS),
    st.tuples(st.just("fit"), FOLDERS, st.integers(1, 2), st.integers(0, 3), st.one_of(st.none(), NUMBERS),
              st.one_of(st.none(), st.integers(1, 5))),
)  # fmt: skip


@pytest.fixture(scope="module")
def memory(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("ledger_memory")


@settings(max_examples=4, deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=5))
def test_nothing_that_was_released_is_forgotten(memory: ModuleType, steps: list[tuple]) -> None:
    _check(memory, steps)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=8))
def test_nothing_is_forgotten_over_longer_stories(memory: ModuleType, steps: list[tuple]) -> None:
    _check(memory, steps)


def _check(memory: ModuleType, steps: list[tuple]) -> None:
    with TemporaryDirectory() as folder:
        world = memory.Releases(Path(folder))
        world.fit("a", 2, 0)
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
        assert world.below == [] and world.repeated == 0


def _longer_wins(self: Charges, other: Charges) -> None:
    if other.rounds > self.rounds:
        self.histories = dict(other.histories)


def _own_folder_only(record: ledger_record.LedgerRecord, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    ledger_record._write(record, home, foreign=False)


FORGETFUL = {
    "the longer of two histories wins": [(Charges, "merge", _longer_wins)],
    "only a run's own folder is looked at": [
        (Ledger, "recall", lambda self, folder: None), (ledger_module, "exchange", _own_folder_only),
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", [None, *FORGETFUL])
def test_a_forgetful_ledger_is_found_out(
    memory: ModuleType, how: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The check can fail: B has a round of its own and goes on from A's first checkpoint, after A's second round."""
    for target in FORGETFUL.get(how or "", []):
        monkeypatch.setattr(*target)
    world = memory.Releases(tmp_path)
    world.fit("a", 2, 0)
    world.fit("b", 1, 1)
    world.fit("b", 1, 1, checkpoint=0)
    assert world.rounds == 4 and bool(world.below) == (how is not None)


@pytest.mark.parametrize("kill", [1, 2, 3, None])
def test_a_process_that_opened_no_sum_joined_no_folders(memory: ModuleType, kill: int | None, tmp_path: Path) -> None:
    """A is taken up from B's checkpoint and dies before, while or after its charge is written; then B goes on by itself."""
    world = memory.Releases(tmp_path)
    world.fit("a", 1, 0)
    world.fit("b", 1, 1)
    world.fit("a", 1, 1, checkpoint=1, kill=kill)
    world.fit("b", 1, 1, checkpoint=1)
    opened = world.rounds == 4
    assert (world.family["a"] == world.family["b"]) == opened == (kill is None or kill > 2)
    assert world.below == []


def test_cohorts_keyed_by_the_round_are_found_out(
    memory: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A secret that the checkpoint keeps, and the run's own round: an older checkpoint draws the same cohorts again."""

    def by_round(self: Ledger, number: int) -> Callable[[int], bytes]:
        own = sum(stretch.rounds for stretch in self.charges.histories.get(self._name, []))
        return _stream(bytes(32), bytes(4) + own.to_bytes(12, "little"))

    monkeypatch.setattr(Ledger, "_stream", by_round)
    world = memory.Releases(tmp_path)
    world.fit("a", 2, 0)
    world.fit("a", 1, 0, checkpoint=0)
    assert world.repeated == 1 and not world.below


def _stream(key: bytes, nonce: bytes) -> Callable[[int], bytes]:
    encryptor = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor()
    return lambda size: encryptor.update(bytes(size))
