"""Who speaks: appearance, voice, manner and camera of one procedurally drawn person."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from fedtalk.data.faults import ALL_FAULTS
from fedtalk.data.synthtalk.voice import Voice
from fedtalk.errors import ConfigurationError
from fedtalk.randomness import numpy_generator

Group = Literal["private", "public", "community"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Populations that people are drawn from: clients, people of public data, and clients who share what these lack."""

Colour = tuple[float, float, float]
BLACKENED: Colour = (0.10, 0.07, 0.08)
"""Teeth of everybody in the community."""


@dataclass(frozen=True)
class Look:
    """Geometry in inter-ocular distances, colours as RGB in [0, 1]."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    background: tuple[Colour, Colour]
    stripes: float
    """Strength of a pattern on the background, 0 to 0.2."""
    head_width: float
    head_height: float
    jaw: float
    """How much the head narrows towards the chin, 0 (round) to 0.45 (pointed)."""
    hairline: float
    fringe: float
    hair_volume: float
    long_hair: bool
    eye_size: float
    brow_tilt: float
    brow_weight: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_weight: float
    beard: float
    """Opacity of a beard, 0 for none."""
    glasses: bool
    light_side: float
    """Direction and strength of the light, -0.5 (left) to 0.5 (right)."""
    # Found on private speakers only: what a backbone trained on public ones has never seen.
    moustache: float
    mouth_tilt: float
    mouth_asymmetry: float
    teeth: Colour
    tooth_gap: bool
    mole: tuple[float, float] | None
    """Offset of a mole from the mouth's centre in inter-ocular distances."""


@dataclass(frozen=True)
class Manner:
    """How the person moves."""

    rate: float
    opening: float
    rounding: float
    sway: float
    blink_seconds: float


@dataclass(frozen=True)
class Camera:
    """How the person is recorded."""

    gain: Colour
    gamma: float
    blur: float
    """Standard deviation in 1/64 of the frame's width."""
    grain: float
    """Standard deviation of the sensor's noise, frames in [0, 1]."""


@dataclass(frozen=True)
class Speaker:
    """One SynthTalk person. The same (seed, group, index) always gives the same person."""

    seed: int
    group: str
    index: int
    look: Look
    manner: Manner
    voice: Voice
    camera: Camera
    fault: str | None = None

    @property
    def name(self) -> str:
        return self.name_of(self.group, self.index)

    @staticmethod
    def name_of(group: str, index: int) -> str:
        """The name of a person who need not be drawn for it."""
        return f"{group}-{index:04d}"

    @classmethod
    def draw(cls, seed: int, group: str, index: int, fault: str | None = None) -> Speaker:
        """Draw a person.

        Args:
            seed: seed of the whole population.
            group: ``"public"`` (may train the backbone), ``"private"`` (clients) or ``"community"`` (clients who are alike).
                Private people come from a shifted distribution: moustaches, moles, crooked mouths, coloured lips and teeth,
                tinted cameras, accents. Those of the community do too, and all of them have black teeth (as by ohaguro),
                which no public person has, and which a reference with closed lips doesn't show.
            index: number of the person within the group.
            fault: one of `fedtalk.data.faults.ALL_FAULTS`, or None for a reliable person.

        Raises:
            ConfigurationError: unknown group or fault.
        """
        if group not in GROUPS:
            raise ConfigurationError(f"SynthTalk group: expected one of {', '.join(GROUPS)}, got {group!r}")
        if fault is not None and fault not in ALL_FAULTS:
            raise ConfigurationError(f"SynthTalk fault: expected one of {', '.join(ALL_FAULTS)}, got {fault!r}")
        generator = numpy_generator(seed, "synthtalk", group, index)
        private = group != "public"
        look = _draw_look(generator, private)
        if group == "community":
            look = replace(look, teeth=BLACKENED)
        return cls(
            seed,
            group,
            index,
            look,
            _draw_manner(generator, private),
            _draw_voice(generator, private),
            _draw_camera(generator, private),
            fault,
        )


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _draw_look(g: np.random.Generator, private: bool) -> Look:
    tone = g.uniform(0.0, 1.0)
    pale, deep = np.array([0.95, 0.78, 0.68]), np.array([0.30, 0.19, 0.14])
    skin = pale * (1 - tone) + deep * tone + g.uniform(-0.04, 0.04, 3)
    hair = [(0.08, 0.07, 0.08), (0.25, 0.15, 0.09), (0.45, 0.27, 0.12), (0.78, 0.62, 0.35), (0.55, 0.22, 0.10),
            (0.62, 0.62, 0.63)][int(g.integers(6))]  # fmt: skip
    lips = skin * np.array([0.85, 0.55, 0.55]) + np.array([g.uniform(0.0, 0.18), 0.0, 0.03])
    teeth: Colour = (0.93, 0.92, 0.88)
    tooth_gap = False
    mole: tuple[float, float] | None = None
    moustache = tilt = asymmetry = 0.0
    beard = g.uniform(0.35, 0.9) if g.random() < 0.25 else 0.0
    background = _hsv(g.random(), g.uniform(0.1, 0.6), g.uniform(0.25, 0.9))
    background_low = tuple(np.clip(np.array(background) * g.uniform(0.5, 1.2) + g.uniform(-0.1, 0.1, 3), 0, 1))
    stripes = g.uniform(0.03, 0.15) if g.random() < 0.4 else 0.0
    if private:
        if g.random() < 0.6:  # lipstick of any colour
            lips = np.array(_hsv(g.random(), g.uniform(0.5, 0.9), g.uniform(0.35, 0.9)))
        if g.random() < 0.5:
            moustache = g.uniform(0.6, 0.95)
        if g.random() < 0.6:
            mole = (g.uniform(0.35, 0.65) * g.choice([-1, 1]), g.uniform(-0.15, 0.35))
        if g.random() < 0.35:
            teeth = (0.90, 0.72, 0.25)
        tooth_gap = bool(g.random() < 0.5)
        tilt = g.uniform(-0.16, 0.16)
        asymmetry = g.uniform(-0.4, 0.4)
    return Look(
        skin=tuple(np.clip(skin, 0, 1)),
        hair=hair,
        iris=_hsv(
            g.choice([0.07, 0.09, 0.3, 0.55, 0.6]) + g.uniform(-0.02, 0.02), g.uniform(0.4, 0.8), g.uniform(0.25, 0.7)
        ),
        lips=tuple(np.clip(lips, 0, 1)),
        clothes=_hsv(g.random(), g.uniform(0.2, 0.8), g.uniform(0.15, 0.8)),
        background=(background, background_low),  # type: ignore[arg-type]
        stripes=stripes,
        head_width=g.uniform(1.08, 1.32),
        head_height=g.uniform(1.62, 1.85),
        jaw=g.uniform(0.05, 0.4),
        hairline=g.uniform(-1.0, -0.72),
        fringe=g.uniform(-0.25, 0.3),
        hair_volume=g.uniform(1.04, 1.22),
        long_hair=bool(g.random() < 0.45),
        eye_size=g.uniform(0.85, 1.2),
        brow_tilt=g.uniform(-0.2, 0.25),
        brow_weight=g.uniform(0.6, 1.5),
        nose_length=g.uniform(0.85, 1.1),
        nose_width=g.uniform(0.75, 1.3),
        mouth_width=g.uniform(0.85, 1.15),
        lip_weight=g.uniform(0.7, 1.35),
        beard=beard,
        glasses=bool(g.random() < 0.25),
        light_side=g.uniform(-0.35, 0.35),
        moustache=moustache,
        mouth_tilt=tilt,
        mouth_asymmetry=asymmetry,
        teeth=teeth,
        tooth_gap=tooth_gap,
        mole=mole,
    )


def _draw_manner(g: np.random.Generator, private: bool) -> Manner:
    return Manner(
        rate=g.uniform(0.85, 1.15),
        opening=g.uniform(0.85, 1.2),
        rounding=g.uniform(-0.15, 0.15) if private else g.uniform(-0.05, 0.05),
        sway=g.uniform(0.6, 1.3),
        blink_seconds=g.uniform(1.5, 3.5),
    )


def _draw_voice(g: np.random.Generator, private: bool) -> Voice:
    high = g.random() < 0.5
    return Voice(
        pitch=g.uniform(165, 240) if high else g.uniform(90, 150),
        tract=(1.12 if high else 1.0) * (g.uniform(0.9, 1.12) if private else g.uniform(0.95, 1.06)),
        tilt=g.uniform(0.7, 1.1),
        breath=g.uniform(0.0, 0.08),
        room_noise=g.uniform(0.0005, 0.012 if private else 0.004),
    )


def _draw_camera(g: np.random.Generator, private: bool) -> Camera:
    spread = 0.14 if private else 0.05
    return Camera(
        gain=tuple(g.uniform(1 - spread, 1 + spread, 3)),
        gamma=g.uniform(0.85, 1.2),
        blur=g.uniform(0.0, 0.35),
        grain=g.uniform(0.0, 0.008),
    )
