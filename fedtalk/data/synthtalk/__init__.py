"""SynthTalk: procedurally drawn speakers whose mouth and voice come from one articulation track.

No file and no person stands behind them, so the true opening of the lips is known exactly for every frame, and the
whole of fedtalk can be tried, tested and measured without data. `Speaker.draw` gives a speaker, `make_clip` a clip.
"""

from fedtalk.data.synthtalk.clips import make_clip
from fedtalk.data.synthtalk.speaker import GROUPS, Group, Speaker

__all__ = ["GROUPS", "Group", "Speaker", "make_clip"]
