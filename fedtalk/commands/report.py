"""`fedtalk report RUN...`: one HTML page: curves, tables, spread, videos."""

from fedtalk.report.command import report

__all__ = ["report"]
