"""Gathers the sounds that scripts/speech_set.py disturbs: recordings as 16 kHz WAVs, SynthTalk's voices with their lips.

    python scripts/speech_sounds.py OUT [NAME=FOLDER...]

Every recording below FOLDER that PyAV decodes goes into OUT/NAME.wav, one after another with a quarter of a second between;
OUT/synthtalk-*.npz are public SynthTalk speakers. We took LibriVox readings (Debian's pocketsphinx-testdata), espeak-ng and
flite (written out as WAVs), and the prompts of Debian's asterisk-core-sounds-{en,es,fr,it,ru}-g722 (CC BY-SA 3.0).
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import av
import numpy as np

from fedtalk.data.clip import SAMPLE_RATE
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.synthtalk.articulation import draw_articulation
from fedtalk.randomness import numpy_generator

SPEAKERS, FRAMES, TAKE = 120, 150, 2
SUFFIXES = (".wav", ".g722", ".flac", ".ogg", ".mp3")


def decoded(path: Path) -> np.ndarray:
    """(N,) int16, 16 kHz mono; nothing where it can't be read."""
    try:
        with av.open(str(path), format="g722" if path.suffix == ".g722" else None) as container:
            resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            frames.extend(resampler.resample(None))
    except (av.FFmpegError, IndexError) as error:
        print(f"left out {path}: {error}")
        return np.zeros(0, np.int16)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else np.zeros(0, np.int16)


def synthtalk(index: int) -> dict[str, np.ndarray]:
    """``audio`` (N,), ``lips`` (F, 3) of a public speaker, in the units of `fedtalk.encoders.speech_network.LIPS`."""
    speaker = Speaker.draw(0, "public", index)
    clip = make_clip(speaker, TAKE, FRAMES, 32)
    # The clip keeps its openness alone; its track is what the same generator draws first.
    generator = numpy_generator(speaker.seed, "take", speaker.group, speaker.index, TAKE)
    track = draw_articulation(6.1, speaker.manner.rate, speaker.manner.rounding, generator).at_frames(FRAMES, 25)
    assert clip.openness is not None and np.allclose(track["openness"], clip.openness, atol=1e-5)
    width, opening = 0.34 * track["width"] * speaker.look.mouth_width, clip.openness * speaker.manner.opening
    columns = [0.4 * opening, width - np.median(width), 0.12 * (opening - np.median(opening))]
    return {"audio": clip.audio.astype(np.float16), "lips": np.stack(columns, 1).astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("recordings", nargs="*", metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, _, folder in (entry.partition("=") for entry in arguments.recordings):
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in SUFFIXES)
        parts = [part for part in map(decoded, paths) if len(part) > SAMPLE_RATE // 2 and np.abs(part).max() > 500]
        between = np.zeros(SAMPLE_RATE // 4, np.int16)
        sound = np.concatenate([piece for part in parts for piece in (part, between)])
        with wave.open(str(arguments.out / f"{name}.wav"), "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(SAMPLE_RATE)
            stream.writeframes(sound.tobytes())
        print(f"{name}: {len(parts)} recordings, {len(sound) / SAMPLE_RATE / 60:.1f} minutes")
    for index in range(SPEAKERS):
        np.savez(arguments.out / f"synthtalk-{index:03d}.npz", **synthtalk(index))


if __name__ == "__main__":
    main()
