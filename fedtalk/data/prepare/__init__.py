"""Preparation: raw videos to clips.

Each video is read twice: once to follow its faces, once to cut one of them out. Memory holds a few source pictures and
the clip being made, whatever the length of the video.
"""

from fedtalk.data.prepare.pipeline import MANIFEST, prepare
from fedtalk.data.prepare.report import REJECTS, PrepareReport, Reject

__all__ = ["MANIFEST", "REJECTS", "PrepareReport", "Reject", "prepare"]
