"""Callbacks of a federated run: aggregation, monitors, progress."""

from fedtalk.callbacks.aggregation import Aggregation, FedAvg, isfa_weight

__all__ = ["Aggregation", "FedAvg", "isfa_weight"]
