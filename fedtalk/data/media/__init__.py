"""Video, sound and pictures in, brought to one clock: 25 frames and 16 000 mono samples a second.

Reading streams, so that memory does not grow with the length of a video. Both tracks of a file are placed by their
presentation timestamps on one axis that starts with the first video frame: frame ``i`` shows the instant ``i / 25`` s
and goes with samples ``640 i`` to ``640 (i + 1)``.
"""

from fedtalk.data.media.audio import audio_blocks, checked_audio, read_audio, sound_rate, write_audio
from fedtalk.data.media.files import PathLike
from fedtalk.data.media.pictures import check_frame, read_image, write_image
from fedtalk.data.media.video import NativeFrame, Video, native_frames, read_video

__all__ = [
    "NativeFrame",
    "PathLike",
    "Video",
    "audio_blocks",
    "check_frame",
    "checked_audio",
    "native_frames",
    "read_audio",
    "read_image",
    "read_video",
    "sound_rate",
    "write_audio",
    "write_image",
]
