"""The version of fedtalk."""

__version__ = "0.1.0"
