"""Callbacks of a federated run: aggregation, monitors, progress."""

from fedtalk.callbacks.aggregation import ISFA, Aggregation, FedAvg, isfa_weight

__all__ = ["ISFA", "Aggregation", "FedAvg", "isfa_weight"]
