"""Rules to compare with, in whole rounds."""

from __future__ import annotations

import numpy as np
import pytest

from fedtalk.callbacks import Krum, Median, Oracle, TrimmedMean
from fedtalk.callbacks.baselines import Robust
from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining

LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=0.05)


def _flat(state: dict) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in ("first", "second")])


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.25), Krum(0.3)], ids=lambda rule: type(rule).__name__)
def test_a_round_is_what_the_rule_makes_of_the_updates(run, people, clear_updates, rule: Robust) -> None:
    updates = clear_updates(people, LOCAL)
    expected = rule.combined(np.stack([updates[name] for name in people]))
    np.testing.assert_allclose(_flat(run(people, rule, local=LOCAL).state), expected, rtol=0, atol=1e-7)


def test_the_oracle_leaves_out_who_is_known_to_be_faulty(run, people, clear_updates, colour_data, monkeypatch) -> None:
    monkeypatch.setattr(colour_data, "unreliable_clients", ["bert", "dora"])
    updates = clear_updates(people, LOCAL)
    expected = (1 * updates["anna"] + 5 * updates["cora"]) / 6
    np.testing.assert_allclose(_flat(run(people, Oracle(), local=LOCAL).state), expected, rtol=0, atol=1e-7)


def test_a_rule_that_sees_updates_is_refused_with_privacy(run, people) -> None:
    privacy = Privacy(assumptions=Assumptions(0.0, 0.3))
    with pytest.raises(ConfigurationError, match=r"trainer\.aggregation: Median looks at every client's update"):
        run(people, Median(), privacy=privacy)
