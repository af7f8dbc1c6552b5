"""fedtalk: personalised talking-head video, trained federated."""

__version__ = "0.1.0"
