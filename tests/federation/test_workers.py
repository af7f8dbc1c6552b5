"""Worker processes: the same bits however many there are, and whatever happens to one of them costs one update."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA, Aggregation, FedAvg
from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.callback import RoundCallback
from fedtalk.federation.local import LocalTraining
from fedtalk.federation.module import copy_state
from fedtalk.federation.workers import WorkerError
from fedtalk.privacy.settings import AdaptiveClipping, Privacy

HERE = Path(__file__).parent


class Rounds(RoundCallback):
    """Keeps outcomes and steps."""

    def __init__(self) -> None:
        self.outcomes: list = []
        self.steps: list[tuple[str, int]] = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:
        self.steps.append((client, step))

    def on_round_end(self, trainer, module, outcome) -> None:
        self.outcomes.append(outcome)


def _fit(parts, people: dict, folder: Path, aggregation: Aggregation | None = None, **settings: object):
    rounds, module = Rounds(), parts.Pull(dropout=0.3)
    aggregation = aggregation or ISFA(gamma=1.0)
    parts.trainer(folder, [aggregation, rounds], **settings).fit(module, parts.People(people))
    return copy_state(module.exchanged_parameters()), rounds


def _people(parts, count: int = 6) -> dict:
    return {
        f"client-{number}": parts.Person((0.2 * number, 0.5, -0.3 * number), clips=1 + number % 3)
        for number in range(count)
    }


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_straggler_is_not_waited_for_once_there_are_enough(parts, tmp_path: Path) -> None:
    """One of six hangs for ever and there is no deadline: five of six are enough, and its worker takes nothing more."""
    people = _people(parts)
    people["client-3"].does = "hang"
    started = time.monotonic()
    _, rounds = _fit(parts, people, tmp_path, workers=2, enough=0.8)
    assert time.monotonic() - started < 200
    for outcome in rounds.outcomes:
        assert outcome.failures == {"client-3": "Late: the round was closed with 5 of 6 updates"}
        assert [report.client for report in outcome.reports] == [name for name in people if name != "client-3"]


def test_in_one_process_those_who_start_first_close_the_round(parts, tmp_path: Path) -> None:
    """Drawn anew for each round, and the same in a run that is the same."""
    found = [_fit(parts, _people(parts), tmp_path / str(number), enough=0.5, rounds=4) for number in range(2)]
    assert _same(found[0][0], found[1][0])
    taken = [[report.client for report in outcome.reports] for outcome in found[0][1].outcomes]
    assert all(len(clients) == 3 for clients in taken) and len({tuple(clients) for clients in taken}) > 1
    assert all(set(outcome.failures) | set(clients) == set(outcome.cohort)
               for outcome, clients in zip(found[0][1].outcomes, taken, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("enough", "privacy", "message"),
    [
        (0.0, None, r"trainer\.enough: expected a share"),
        (0.9, {"noise_multiplier": 1.0}, r"trainer\.enough: with differential privacy expected 1, got 0\.9"),
        (0.5, {}, r"trainer\.enough: secure aggregation opens no sum .*at least 0\.8, got 0\.5"),
    ],
)
def test_enough_that_cannot_be_is_refused(
    parts, tmp_path: Path, enough: float, privacy: dict | None, message: str
) -> None:
    settings = None if privacy is None else Privacy(**privacy)
    with pytest.raises(ConfigurationError, match=message):
        parts.trainer(tmp_path, privacy=settings, enough=enough)


def _descendants(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_same_bits_for_any_number_of_workers(parts, tmp_path: Path) -> None:
    """With dropout, ISFA and clients' kept optimizers; reports in the cohort's order, every step told."""
    people = _people(parts)
    local = LocalTraining(steps=3, batch_size=4, learning_rate=0.05, proximal=0.1, keep_optimizer=True)
    runs = {
        workers: _fit(parts, people, tmp_path / str(workers), local=local, rounds=2, workers=workers)
        for workers in (1, 2, 4)
    }
    state, rounds = runs[1]
    for workers in (2, 4):
        other, seen = runs[workers]
        assert _same(state, other)
        assert sorted(seen.steps) == sorted(rounds.steps)
        for one, two in zip(rounds.outcomes, seen.outcomes, strict=True):
            assert [(r.client, r.losses, r.weight, r.identity) for r in one.reports] == [
                (r.client, r.losses, r.weight, r.identity) for r in two.reports
            ]
        assert not list((tmp_path / str(workers)).rglob(".part-*"))
    assert multiprocessing.active_children() == []


def test_what_happens_to_a_worker_costs_its_client_only(parts, tmp_path: Path) -> None:
    """Killed, hanging past the deadline, or raising: in both rounds, so that workers have been started again."""
    people = _people(parts, 3)
    bad = {"dies": "die in step", "hangs": "hang in step", "raises": "raise"}
    troubled = {**{name: parts.Person(does=does) for name, does in bad.items()}, **people}
    local = LocalTraining(steps=3, batch_size=4, learning_rate=0.05, deadline_seconds=2.0)
    without, _ = _fit(parts, people, tmp_path / "without")
    state, rounds = _fit(parts, troubled, tmp_path / "troubled", local=local, workers=2)
    assert _same(without, state)
    for outcome in rounds.outcomes:
        assert list(outcome.failures) == list(bad)
        assert (
            outcome.failures["dies"]
            == "WorkerError: the worker process that trained it ended by SIGKILL (the system's, where memory has run out)"
        )
        assert outcome.failures["raises"] == "ArtifactError: clip 7 is damaged"
        assert outcome.failures["hangs"].startswith("DeadlineError: client hangs was still at work after 3.")
        assert [report.client for report in outcome.reports] == list(people)


def test_a_worker_that_cant_start_again_at_once_is_no_configuration_error(parts, tmp_path: Path, caplog) -> None:
    """After it was killed for want of memory there may be none yet to start it in."""
    people = {**{name: parts.Person(does="die in step") for name in ("dies", "too")}, **_people(parts, 2)}
    rounds = Rounds()
    (starts := tmp_path / "starts").mkdir()
    parts.trainer(tmp_path, [ISFA(gamma=1.0), rounds], workers=2).fit(parts.Forgetful(starts), parts.People(people))
    assert [list(outcome.failures) for outcome in rounds.outcomes] == [["dies", "too"]] * 2
    assert "a worker could not start again: MemoryError" in caplog.text


def test_a_worker_that_never_gets_ready_is_not_waited_for(
    parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtalk.federation.workers.START_SECONDS", 1.0)
    with pytest.raises(
        WorkerError, match=r"ended 3 times before it was ready, the last time after 1 s of getting ready"
    ):
        parts.trainer(tmp_path, [ISFA(gamma=1.0)], workers=2).fit(parts.Stuck(), parts.People(_people(parts)))


def test_a_worker_whose_device_is_lost_to_it_is_started_again(parts, tmp_path: Path, caplog) -> None:
    """What CUDA says of a failed assertion it says of everything that comes after it in the process."""
    people = _people(parts)
    people["client-1"].does = "lose device"
    _, rounds = _fit(parts, people, tmp_path, workers=2)
    for outcome in rounds.outcomes:
        assert outcome.failures == {"client-1": "RuntimeError: CUDA error: device-side assert triggered"}
    assert caplog.text.count("can't use its device any more; it is started again") == 2


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_too_small_for_what_workers_start_from_is_an_error_of_ours(parts, tmp_path: Path) -> None:
    disk = tmp_path / "run"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(disk)], stderr=subprocess.DEVNULL
    ).returncode:
        pytest.skip("mounts are forbidden here")
    try:
        with pytest.raises(OutputError, match="what workers start from, failed: No space left on device"):
            parts.trainer(tmp_path, workers=2, logger=False).fit(parts.Pull(), parts.People(_people(parts, 2)))
        assert not list(disk.glob(".part-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_of_processes_that_take_a_client_together_one_may_die(parts, tmp_path: Path) -> None:
    from fedtalk.federation.placement import Placement

    people = _people(parts, 2)
    troubled = {"dies": parts.Person(does="die in step"), **people}
    placed = {"default_placement": Placement("ddp", 2)}
    _, rounds = _fit(parts, troubled, tmp_path / "troubled", rounds=1, **placed)
    assert list(rounds.outcomes[0].failures) == ["dies"]
    assert "WorkerError: the worker process that trained it ended by SIGKILL" in rounds.outcomes[0].failures["dies"]
    assert [report.client for report in rounds.outcomes[0].reports] == list(people)


def test_a_private_run_keeps_its_promise_with_workers(parts, tmp_path: Path) -> None:
    """Secrets stay in the main process, and the clipping bound that moves there is the one that counts."""
    people = _people(parts, 8)

    private = Privacy(
        noise_multiplier=0.5, delta=1e-3, clip_norm=0.05, adaptive_clipping=AdaptiveClipping(), insecure_noise_seed=3
    )
    one, _ = _fit(parts, people, tmp_path / "one", FedAvg(), rounds=2, privacy=private)
    two, rounds = _fit(parts, people, tmp_path / "two", FedAvg(), rounds=2, privacy=private, workers=2)
    assert _same(one, two)
    assert rounds.outcomes[1].reports == [] and rounds.outcomes[1].privacy["clip_norm"] != 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_main_process(number: int, tmp_path: Path) -> None:
    """Both workers hang in a step when the signal comes."""
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import worker_parts as p; from pathlib import Path; "
        f"p.fit(Path({str(tmp_path)!r}), {{n: p.Person(does='hang in step') for n in 'ab'}}, workers=2)"
    )
    main = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        # Prepared clips are there: the clients are in their first step, or about to be.
        while len(list((tmp_path / "cache").rglob("*.safetensors"))) < 4:
            assert time.monotonic() < end and main.poll() is None
            time.sleep(0.1)
        workers = _descendants(main.pid)  # and what Python keeps to start them
        assert len(workers) >= 2
        if number == signal.SIGINT:
            os.killpg(main.pid, number)  # as Ctrl-C does
        else:
            main.send_signal(number)
        main.wait(timeout=30)
        end = (
            time.monotonic() + 60
        )  # the server that workers are forked from takes its time; a step hangs for ten minutes
        while any(_alive(worker) for worker in workers):
            assert time.monotonic() < end
            time.sleep(0.05)
        leftovers = list((tmp_path / "run").rglob(".part-*"))
        assert not leftovers or number == signal.SIGKILL  # the next fit in the folder removes it then
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)


def test_what_cant_be_sent_to_workers_is_told_before_any_work(parts, tmp_path: Path) -> None:
    class Local(parts.Pull):
        """No other process can import it."""

    with pytest.raises(
        ConfigurationError, match=r"trainer.workers: model and data are sent to the workers, and .*Local"
    ):
        parts.trainer(tmp_path, workers=2).fit(Local(), parts.People(_people(parts, 1)))
    assert not list(tmp_path.rglob(".part-*"))


def test_no_workers_is_a_wrong_setting(parts, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.workers: expected at least 1 process, got 0"):
        parts.trainer(tmp_path, workers=0)
