"""A decoded frame to 8-bit RGB for an ordinary screen, whatever its matrix, range and transfer curve.

Telephones record HDR by default (HEVC 10 bit in BT.2020 with the PQ or HLG curve). Read as if it were ordinary video
it looks pale; here it is brought back to light, with diffuse white where ITU-R BT.2408 puts it (203 cd/m2), its
highlights are compressed, and it is coded by BT.709's curve: a table that ffmpeg's ``lut3d`` applies.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

PQ, HLG = 16, 18
"""Transfer characteristics of SMPTE ST 2084 and ARIB STD-B67 (ITU-T H.273)."""
BT2020 = frozenset({9, 10})
"""Matrix coefficients of BT.2020 (H.273)."""
DIFFUSE_WHITE = 203.0
"""cd/m2 of a white sheet of paper (ITU-R BT.2408)."""
KNEE = 0.8
"""Linear light, in diffuse whites, above which highlights are compressed."""
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
"""Of BT.2020's primaries."""
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""
TABLE_SIDE = 49
"""Entries of the table along each colour."""


def is_hdr(frame: Any) -> bool:
    """Whether a decoded frame is coded by the PQ or the HLG curve."""
    return int(frame.color_trc) in (PQ, HLG)


def to_rgb(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a decoded ``av.VideoFrame``."""
    if not is_hdr(frame) and int(frame.colorspace) not in BT2020:
        return frame.to_ndarray(format="rgb24")
    graph = _graph(
        threading.get_ident(), frame.width, frame.height, frame.format.name, int(frame.color_range) == 2,
        int(frame.color_trc) if is_hdr(frame) else 0,
    )  # fmt: skip
    graph.push(frame)
    return graph.pull().to_ndarray()


def screen_colours(signal: np.ndarray, transfer: int) -> np.ndarray:
    """What an ordinary screen is sent for a BT.2020 signal.

    Args:
        signal: (..., 3) RGB in [0, 1], coded by ``transfer``.
        transfer: `PQ` or `HLG`.

    Returns:
        (..., 3) RGB in [0, 1], BT.709.

    >>> screen_colours(np.array([0.0, 0.0, 0.0]), PQ).round(3).tolist()
    [0.0, 0.0, 0.0]
    """
    if transfer == PQ:
        root = signal ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light = light * (10_000 / DIFFUSE_WHITE)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        # the system gamma of a display of 1000 cd/m2, by luminance
        light = scene * ((scene @ LUMINANCE) ** 0.2 * (1000 / DIFFUSE_WHITE))[..., None]
    light = np.maximum(light @ TO_BT709.T, 0)
    peak = light.max(axis=-1, keepdims=True)
    compressed = KNEE + (1 - KNEE) * (1 - np.exp(-np.maximum(peak - KNEE, 0) / (1 - KNEE)))
    light = light * np.where(peak > KNEE, compressed / np.maximum(peak, 1e-6), 1)  # by one factor: hues stay
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


@functools.lru_cache(maxsize=8)
def _graph(thread: int, width: int, height: int, pixels: str, full: bool, transfer: int) -> Any:
    """ffmpeg's filters from such a frame to RGB; one for each thread, since they hold a frame."""
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=width, height=height, format=av.VideoFormat(pixels), time_base=Fraction(1, 25))]
    # named outright, since older PyAV takes BT.2020's matrix for another
    source = f"in_color_matrix=bt2020:in_range={'full' if full else 'limited'}"
    nodes.append(graph.add("scale", f"{source}:out_range=full:flags=bilinear+accurate_rnd"))
    nodes.append(graph.add("format", "gbrp16le" if transfer else "rgb24"))
    with tempfile.TemporaryDirectory() as folder:
        if transfer:
            table = Path(folder) / "table.cube"
            table.write_text(_cube(transfer))
            nodes += [graph.add("lut3d", f"file={table}:interp=tetrahedral"), graph.add("format", "rgb24")]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


@functools.cache
def _cube(transfer: int) -> str:
    """`screen_colours` as an Adobe .cube file; red runs fastest."""
    axis = np.linspace(0, 1, TABLE_SIDE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    rows = screen_colours(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer)
    lines = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in rows.clip(0, 1))
    return f"LUT_3D_SIZE {TABLE_SIDE}\n{lines}\n"
