"""Callbacks of a federated run: aggregation, monitors, progress."""

from fedtalk.callbacks.aggregation import ISFA, Aggregation, FedAvg, Standing, isfa_weight
from fedtalk.callbacks.baselines import Krum, Median, Oracle, Scaffold, TrimmedMean, Uniform

__all__ = [
    "ISFA", "Aggregation", "FedAvg", "Krum", "Median", "Oracle", "Scaffold", "Standing", "TrimmedMean", "Uniform", "isfa_weight",
]  # fmt: skip
