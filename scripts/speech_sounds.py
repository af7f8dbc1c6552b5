"""Gathers the sounds that scripts/speech_set.py disturbs: many voices as 16 kHz WAVs, SynthTalk's voices with their lips.

    apt-get download fillets-ng-data fillets-ng-data-cs fillets-ng-data-nl klettres-data ktuberling-data \\
        tuxpaint-stamps-default hedgewars-data gcin-voice unknown-horizons pocketsphinx-testdata \\
        asterisk-prompt-it-menardi-wav asterisk-core-sounds-{en,es,fr,it,ru}-g722
    for deb in *.deb; do dpkg -x $deb UNPACKED/${deb%%_*}; done
    apt-get install espeak-ng flite festival festvox-{kallpc16k,kdlpc16k,italp16k,itapc16k,us-slt-hts,ca-ona-hts} \\
        festvox-czech-{dita,krb,machac,ph} festvox-suopuhe-{lj,mv}
    python scripts/speech_sounds.py OUT UNPACKED

OUT/<voice>.wav holds a voice's recordings one after another with a quarter of a second between, `MOST` seconds of them at
most, spread over what there is; OUT/synthtalk-*.npz are public SynthTalk speakers. All packages are in Debian's main section.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import wave
from pathlib import Path

import av
import numpy as np

from fedtalk.data.clip import SAMPLE_RATE
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.synthtalk.articulation import draw_articulation
from fedtalk.randomness import numpy_generator

SPEAKERS, FRAMES, TAKE = 120, 150, 2
MOST = 190
"""Seconds of one voice."""
SUFFIXES = (".wav", ".g722", ".ogg")
VOICES = {
    r"fillets-ng-data.*/sound/.*/(en|cs|nl)/[^/]*-(m|v)-[^/]*": "fillets-{}-{}",
    r"fillets-ng-data.*/sound/.*/(en|cs|nl)/([a-z]+\d?)-[^/]*": "fillets-{}-{}",
    r"klettres-data/.*/klettres/(\w+)/syllab/.*": "klettres-{}",
    r"ktuberling-data/.*/sounds/([^/@]+)/.*": "ktuberling-{}",
    r"tuxpaint-stamps-default/.*_desc_?([a-z]*).*": "tuxpaint-{}",
    r"hedgewars-data/.*/voices/(\w+)/.*": "hedgewars-{}",
    r"gcin-voice/.*/(\d+)": "gcin-{}",
    r"unknown-horizons/.*/voice/(\w+)/.*": "horizons-{}",
    r"pocketsphinx-testdata/.*/librivox/.*": "librivox",
    r"(asterisk-[\w-]*)/.*": "{}",
}
"""Paths below UNPACKED, without suffix, to names of voices; the first that fits counts."""
SENTENCES = (
    "The birch canoe slid on the smooth planks.", "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.", "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.", "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.", "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.", "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.", "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.", "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.", "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.", "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.", "The girl at the booth sold fifty bonds.",
)  # fmt: skip
"""The first two lists of Harvard sentences (IEEE 1969)."""
FLITE = ("kal16", "awb", "rms", "slt")
FESTIVAL = (
    "kal_diphone", "ked_diphone", "lp_diphone", "pc_diphone", "czech_dita", "czech_krb", "czech_machac", "czech_ph",
    "suo_fi_lj_diphone", "hy_fi_mv_diphone", "upc_ca_ona_hts", "cmu_us_slt_arctic_hts",
)  # fmt: skip
ESPEAK = ("en-gb", "en-us", "de", "fr", "es", "it", "pl", "sv", "pt", "nl", "cs", "tr")
VARIANTS = ("m1", "f1", "m3", "f2", "m7", "f4")


def decoded(path: Path) -> np.ndarray:
    """(N,) int16, 16 kHz mono; nothing where it can't be read."""
    try:
        with av.open(
            str(path), format="g722" if path.suffix == ".g722" else None, metadata_errors="ignore"
        ) as container:
            resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            frames.extend(resampler.resample(None))
    except (av.FFmpegError, IndexError) as error:
        print(f"left out {path}: {error}")
        return np.zeros(0, np.int16)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else np.zeros(0, np.int16)


def voices_in(folder: Path) -> dict[str, list[Path]]:
    """Names of voices to their recordings."""
    voices: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()):
        tail = path.relative_to(folder).with_suffix("").as_posix()
        for pattern, name in VOICES.items():
            if found := re.fullmatch(pattern, tail):
                voices.setdefault(name.format(*found.groups()), []).append(path)
                break
    return voices


def gathered(paths: list[Path]) -> tuple[int, np.ndarray]:
    """How many recordings, and their sound one after another: (N,) int16."""
    order, parts, seconds = np.random.default_rng(0).permutation(len(paths)), {}, 0.0
    for index in order:
        if seconds > MOST:
            break
        part = decoded(paths[index])
        if len(part) > SAMPLE_RATE // 2 and np.abs(part).max() > 500:
            parts[index] = part
            seconds += len(part) / SAMPLE_RATE + 0.25
    between = np.zeros(SAMPLE_RATE // 4, np.int16)
    pieces = [piece for index in sorted(parts) for piece in (parts[index], between)]
    return len(parts), np.concatenate(pieces) if pieces else between


def write(path: Path, sound: np.ndarray) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(SAMPLE_RATE)
        stream.writeframes(sound.tobytes())


def synthesised(folder: Path) -> None:
    """Sentences by espeak-ng, flite and festival below ``folder``, a folder a voice."""
    for voice in FLITE:
        for number, sentence in enumerate(SENTENCES):
            _say(folder / f"flite-{voice}" / f"{number}.wav", ["flite", "-voice", voice, "-t", sentence, "-o"])
    for voice in FESTIVAL:
        for number, sentence in enumerate(SENTENCES):
            command = ["text2wave", "-eval", f"(voice_{voice})", "-o"]
            _say(folder / f"festival-{voice}" / f"{number}.wav", command, sentence)
    for at, voice in enumerate(ESPEAK):
        for number, sentence in enumerate(SENTENCES[at % 2 :: 2]):
            command = ["espeak-ng", "-v", f"{voice}+{VARIANTS[(at + number) % len(VARIANTS)]}", sentence, "-w"]
            _say(folder / f"espeak-{voice}" / f"{number}.wav", command)


def _say(path: Path, command: list[str], text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, str(path)], input=text.encode(), check=True, stderr=subprocess.DEVNULL)


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
    parser.add_argument("unpacked", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as spoken:
        synthesised(Path(spoken))
        voices = voices_in(arguments.unpacked)
        for folder in sorted(Path(spoken).iterdir()):
            voices[folder.name] = sorted(folder.iterdir())
        for name, paths in sorted(voices.items()):
            count, sound = gathered(paths)
            print(f"{name}: {count} of {len(paths)} recordings, {len(sound) / SAMPLE_RATE:.0f} s", flush=True)
            if len(sound) > 4 * SAMPLE_RATE:  # half a window, the least that scripts/speech_set.py takes
                write(arguments.out / f"{name}.wav", sound)
    for index in range(SPEAKERS):
        np.savez(arguments.out / f"synthtalk-{index:03d}.npz", **synthtalk(index))


if __name__ == "__main__":
    main()
