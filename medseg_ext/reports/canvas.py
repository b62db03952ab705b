"""What the pictures of all tasks share: small snapshots of slices, and a black sheet with names, legend and file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_ext.errors import escaped
from medseg_ext.files import write_atomically
from medseg_ext.metrics.volumes import Mask

DPI = 110


def stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey values with ``low`` as black and ``high`` as white."""
    scaled = (values.astype(np.float32, copy=False) - low) * (255.0 / max(high - low, 1e-12))
    return scaled.clip(0, 255).astype(np.uint8)


def union(first: slice, second: slice) -> slice:
    """The shortest slice that holds both."""
    return slice(min(first.start, second.start), max(first.stop, second.stop))


def pack(mask: Mask) -> bytes:
    """A mask as compressed bits."""
    return zlib.compress(np.packbits(mask).tobytes(), level=3)


def unpack(packed: bytes, shape: Sequence[int]) -> Mask:
    """The mask of that shape that :func:`pack` was given."""
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def black_figure(size: tuple[float, float]) -> Any:
    """A matplotlib figure of (width, height) inches.

    Matplotlib costs half a second to import, and a run without pictures should not pay it; the figure is made without
    pyplot, whose state is shared by the process and leaks figures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, facecolor="black")
    FigureCanvasAgg(figure)
    return figure


def write_figure(
    figure: Any,
    path: Path,
    patient: str,
    caption: str,
    handles: Sequence[Any],
    *,
    caption_inches: float,
    caption_size: int,
    **legend: Any,
) -> Path:
    """Put name, caption and legend over a figure, and write it as PNG.

    Args:
        figure: from :func:`black_figure`.
        path: the PNG file.
        patient: in large print, top left.
        caption: below it.
        handles: entries of the legend, top right.
        caption_inches: from the upper edge to the caption.
        caption_size: of its print, points.
        legend: how the legend differs from matplotlib's.

    Raises:
        InputError: the file cannot be written.
    """
    height = figure.get_size_inches()[1]
    for text, inches, colour, points in (
        (escaped(patient), 0.1, "white", 12),
        (caption, caption_inches, "#d0d0d0", caption_size),
    ):
        figure.text(0.012, 1 - inches / height, text, color=colour, fontsize=points, va="top", parse_math=False)
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.995, 1 - 0.03 / height),
        labelcolor="white",
        frameon=False,
        **legend,
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", facecolor="black", metadata={"Software": None})
    return write_atomically(path, png.getvalue())
