"""What `scripts/paper_tables.py` runs: the experiments, the overlays that only they need, and the scales they are run at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedtalk.data.faults import ALL_FAULTS

ROOT = Path(__file__).parents[1]
DIFFUSION = {"class_path": "fedtalk.talker.objectives.DiffusionLoss"}
SPATIAL = [f"attentions.{place}.transformer_blocks.0" for place in (0, 1)]
TEMPORAL = [f"motion_modules.{place}.transformer_blocks.0" for place in (0, 1)]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
EVERYBODY = {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 1.0}}

Overlay = dict[str, Any]


def merged(one: Overlay, other: Overlay) -> Overlay:
    """``other`` stacked on ``one``.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    found = dict(one)
    for key, value in other.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def tdc(weight: float) -> Overlay:
    """The objective with so much of the temporal term."""
    term = {"class_path": "fedtalk.talker.objectives.TemporalDenoisingConsistency", "init_args": {"weight": weight}}
    return {"model": {"init_args": {"objectives": [DIFFUSION, term] if weight else [DIFFUSION]}}}


def adapter(**settings: object) -> Overlay:
    """Other settings of the adapter."""
    return {"model": {"init_args": {"adapter": settings}}}


def targets(blocks: list[str], attention: str) -> Overlay:
    """The adapter on one kind of attention."""
    return adapter(targets=[f"{block}.{attention}.{projection}" for block in blocks for projection in PROJECTIONS])


def data(**settings: object) -> Overlay:
    """Other settings of the data."""
    return {"data": {"init_args": settings}}


OVERLAYS: dict[str, Overlay] = {
    "unreliable": data(unreliable=0.3),
    "mostly-unreliable": data(unreliable=0.6),
    "reliable": data(unreliable=0.0),
    "community": data(group="community"),
    "outsiders": data(outsiders=8),
    **{f"all-{fault}": data(unreliable=1.0, faults=[fault]) for fault in ALL_FAULTS},
    "strangers": data(faults=["wrong_person"]),
    # Three sentences of each, so that nobody's weight is a hundred times another's; the eight are reliable where 30 % are not.
    "twelve-people": merged(
        data(division={"seconds": 9.0}), {"trainer": {"evaluation": {"clients": 8}, "personal": {"most_clients": 8}}}
    ),
    "alone": {"trainer": {"personal": {"steps": 112}}},
    "pooled": {"trainer": {"local": {"steps": 144}}},
    "released": {"trainer": {"personal": None, "default_placement": {"together": 5}}},
    "longer": {"trainer": {"rounds": 4, "local": {"steps": 8}, "cohort": EVERYBODY}},
    "sgd": {"trainer": {"default_placement": {"optimizer": "sgd", "together": 1}, "local": {"learning_rate": 1.0}}},
    **{f"tdc-{weight:g}": tdc(weight) for weight in (0.0, 0.05, 0.1, 0.3, 1.0)},
    **{f"rank-{rank}": adapter(rank=rank, alpha=float(rank)) for rank in (2, 8, 16)},
    "cross-attention": targets(SPATIAL, "attn2"),
    "spatial": targets(SPATIAL, "attn1"),
    "temporal": targets(TEMPORAL, "attn1"),
    # Everybody in every round: of ten clients half would at times be too few to hide in.
    "small-adapter": adapter(rank=2, alpha=2.0, aggregation="freeze_a", targets=["to_v", "to_out.0"])
    | {
        "trainer": {
            "local": {"learning_rate": 0.03}, "validate_every": 0, "videos": None, "personal": None, "cohort": EVERYBODY,
            "default_placement": {"together": 5},
        }
    },
    "dp": {
        "trainer": {
            "default_placement": {"together": 1},  # what clients share in a batch is not accounted for
            "privacy": {
                "noise_multiplier": 0.3, "clip_norm": 1.0, "delta": 0.01,
                "assumptions": {"colluding_fraction": 0.0, "dropout_fraction": 0.1},
            }
        }
    },
}  # fmt: skip
"""Configs that only the tables need, by name; written beside the sweeps."""


@dataclass(frozen=True)
class Scale:
    """How large the runs are."""

    run: Overlay
    """What all of them end with."""
    made: Overlay = field(default_factory=dict)
    """And those of SynthTalk."""
    adapted: dict[str, Overlay] = field(default_factory=dict)
    """By name of a config: what of it has to follow, since it counts steps. The same name stands for both."""
    flag: str = ""
    """Of the command that runs it, a space before it."""

    @property
    def folder(self) -> str:
        return "runs/paper" + self.flag.replace(" --", "-")


def budgets(alone: int, step: int) -> dict[str, Overlay]:
    """Steps of those who train alone (as many as a client takes in rounds and after them) and of all data in one place (as many
    a round as all clients together: ten of SynthTalk, twelve real people), where a client takes so many steps a round."""
    by_itself = {"trainer": {"personal": {"steps": alone}}}
    return {
        "local_only": by_itself,
        "alone": by_itself,
        "centralised": {"trainer": {"local": {"steps": 10 * step}}},
        "pooled": {"trainer": {"local": {"steps": 12 * step}}},
    }


FEW = ["swapped_audio", "copy_reference", "copy_moved"]
FULL = Scale({"trainer": {"evaluation": {"portrait": False, "videos": 1}}})
SMALL = Scale(
    {
        "trainer": {
            "rounds": 3, "cohort": EVERYBODY, "local": {"steps": 4, "batch_size": 2},
            "personal": {"steps": 4, "most_clients": 7}, "validate_every": 0, "videos": None,
            "evaluation": {"clients": 7, "clips": 1, "portrait": False, "videos": 1, "controls": FEW},
        },
    },
    data(frames=20),
    budgets(alone=16, step=4),
    " --small",
)  # fmt: skip
"""Short rounds of the shipped 128 px backbone; people, seeds and pairs are those of the full scale."""
QUICK = Scale(
    {
        "model": {"init_args": {"adapter": {"rank": 2, "alpha": 2.0}, "window": 4, "stride": 4}},
        "trainer": {
            "rounds": 1, "cohort": EVERYBODY, "local": {"steps": 1, "batch_size": 1},
            "personal": {"steps": 1, "most_clients": 2}, "validate_every": 0,
            "evaluation": {"clients": 2, "clips": 1, "portrait": False, "videos": 1, "openness": "synthtalk"}, "videos": None,
            "accelerator": "cpu",
        },
    },
    data(clips=1, frames=12, size=32),
    {
        **budgets(alone=2, step=1),
        **{f"rank-{rank}": adapter(rank=min(rank, 4), alpha=1.0 * rank) for rank in (2, 8, 16)},
        "longer": {"trainer": {"rounds": 1, "local": {"steps": 1}}},
        "twelve-people": {"trainer": {"evaluation": {"clients": 2}, "personal": {"most_clients": 2}}},
    },
    " --quick",
)  # fmt: skip
"""The miniature: one round, one step, an untrained backbone of 32 px."""


def overlays(scale: Scale) -> dict[str, Overlay]:
    """All that is written beside the sweeps at a scale, by name: `OVERLAYS`, ``scale``, ``scale_data`` where it has any, what is
    adapted."""
    found = {**OVERLAYS, "scale": scale.run} | ({"scale_data": scale.made} if scale.made else {})
    for name, change in scale.adapted.items():
        known = found.get(name) or yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
        found[name] = merged(known, change)
    return found


@dataclass(frozen=True)
class Experiment:
    """One sweep and the table that is made of it."""

    title: str
    base: tuple[str, ...]
    """Overlays of all of its runs."""
    variations: tuple[str, ...]
    """Overlays, joined by ``+``; the first is what the others are compared with. ``base`` for none."""
    rows: tuple[str, ...] = ("personal", "trained")
    """Which rows of a run's table are shown, a table each: with personal adapters, with the released one."""
    measures: tuple[str, ...] = ("psnr_mouth", "mouth_corr_pooled", "identity", "flicker", "jitter")
    configs: tuple[str, ...] = ("isfa",)
    labels: tuple[str, ...] = ()
    """Names of the variations in the table; their own by default, ``isfa`` for ``base``."""

    same_people: bool = False
    """Whether all seeds measure the same people; differences then get intervals over them too."""

    @property
    def names(self) -> list[str]:
        return list(self.labels or (variation.replace("base", "isfa") for variation in self.variations))


METHODS = ("fedavg", "base", "fedavg+fedprox", "local_only", "centralised", "fedavg+ditto", "fedavg+fedper", "oracle")
OF_PEOPLE = ("fedavg", "base", "fedavg+fedprox", "local_only+alone", "centralised+pooled")
PEOPLE_LABELS = ("fedavg", "isfa", "fedavg+fedprox", "local_only", "centralised")
RULES = ("fedavg", "base", "isfa_paper", "median", "trimmed_mean", "krum", "oracle")
"""Without ``uniform``, which is FedAvg where all clients have as many clips."""
TOOK_NO_PART = ("community", "outsiders", "released")

EXPERIMENTS = {
    "methods-30": Experiment(
        "Methods, 30 % of the clients unreliable: the clients themselves", ("unreliable", "community"), METHODS
    ),
    "rules-30": Experiment(
        "Rules of aggregation, 30 % unreliable: people who took no part", ("unreliable", *TOOK_NO_PART), RULES,
        ("trained",),
    ),
    "ablation-30": Experiment(
        "Ablation, 30 % unreliable, small adapters: people who took no part",
        ("unreliable", "community", "outsiders", "small-adapter"),
        ("fedavg+tdc-0", "tdc-0", "fedavg", "fedavg+tdc-0+dp", "dp"), ("trained",),
        labels=("adapters only", "+ ISFA", "+ TDC", "+ DP", "all of it"),
    ),
    "strangers-30": Experiment(
        "30 % unreliable, all of them with strangers' clips: people who took no part",
        ("unreliable", "strangers", *TOOK_NO_PART), ("fedavg", "base", "oracle"), ("trained",),
    ),
    "methods-0": Experiment("Methods, all clients reliable: the clients themselves", ("reliable", "community"), METHODS[:5]),
    "tdc": Experiment(
        "TDC by its weight, all reliable: people who took no part", ("reliable", *TOOK_NO_PART),
        ("tdc-0", "tdc-0.1", "tdc-1"), ("trained",),
        ("psnr_mouth", "flicker", "jitter", "warping_error", "mouth_corr_pooled"),
    ),
    "people-30": Experiment(
        "Real people, 30 % unreliable: the clients themselves", ("unreliable", "twelve-people"), OF_PEOPLE,
        configs=("isfa", "people"), labels=PEOPLE_LABELS, same_people=True,
    ),
    "people-0": Experiment(
        "Real people, all reliable: the clients themselves", ("reliable", "twelve-people"), OF_PEOPLE,
        configs=("isfa", "people"), labels=PEOPLE_LABELS, same_people=True,
    ),
    "lora": Experiment(
        "LoRA by rank and targets: people who took no part", ("reliable", *TOOK_NO_PART),
        ("rank-8", "rank-2", "rank-16", "cross-attention", "spatial", "temporal"), ("trained",),
    ),
    "faults": Experiment(
        "All clients unreliable, by fault: people who took no part", ("reliable", *TOOK_NO_PART),
        ("fedavg", *(f"fedavg+all-{fault}" for fault in ALL_FAULTS)), ("trained",), labels=("no fault", *ALL_FAULTS),
    ),
    "lora-dp": Experiment(
        "Small adapters by rank, with and without noise, all reliable: people who took no part",
        ("reliable", "community", "outsiders", "small-adapter"), ("base", "dp", "rank-8", "rank-8+dp"), ("trained",),
        labels=("rank 2", "rank 2, noise", "rank 8", "rank 8, noise"),
    ),
    "scaffold": Experiment(
        "SCAFFOLD, all clients reliable, plain SGD steps: people who took no part",
        ("reliable", *TOOK_NO_PART), ("fedavg+sgd", "scaffold+released+sgd"), ("trained",), labels=("fedavg", "scaffold"),
    ),
    "private-30": Experiment(
        "Clients who share nothing, 30 % unreliable: the clients themselves", ("unreliable",),
        ("fedavg", "base", "local_only", "oracle"),
    ),
    "strangers-60": Experiment(
        "60 % unreliable, all of them with strangers' clips: people who took no part",
        ("mostly-unreliable", "strangers", *TOOK_NO_PART), ("fedavg", "base", "oracle"), ("trained",),
    ),
    "longer-30": Experiment(
        "30 % unreliable, four rounds of eight steps: people who took no part",
        ("unreliable", "longer", *TOOK_NO_PART), ("fedavg", "base", "oracle"), ("trained",),
    ),
    "longer-60": Experiment(
        "60 % unreliable, four rounds of eight steps: people who took no part",
        ("mostly-unreliable", "longer", *TOOK_NO_PART), ("fedavg", "base", "oracle"), ("trained",),
    ),
}  # fmt: skip
"""In order of importance. But for real people and `private-30`, clients are SynthTalk's community: private people who share what
the backbone has never seen, so that there is something for a federation to learn."""
