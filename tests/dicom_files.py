"""Writes MR series in DICOM by hand: explicit little endian, one file a slice, only what geometry needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_LONG = {"OB", "OW", "UN", "SQ"}


def element(group: int, number: int, kind: str, value: bytes | str) -> bytes:
    """One data element."""
    data = value.encode("ascii") if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if kind in {"UI", "OB", "OW"} else b" "
    head = struct.pack("<HH", group, number) + kind.encode()
    return head + (struct.pack("<HI", 0, len(data)) if kind in _LONG else struct.pack("<H", len(data))) + data


def _numbers(values: Sequence[float]) -> str:
    return "\\".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in values)


def slice_bytes(
    pixels: np.ndarray,
    position: Sequence[float],
    directions: Sequence[float],
    spacing: Sequence[float],
    *,
    thickness: float,
    series: str,
    description: str,
    number: int,
    study: str = "1.2.3",
    patient: str = "PHANTOM",
) -> bytes:
    """A file of one slice; `pixels` (rows, columns) uint16, geometry in DICOM's left-posterior-superior mm.

    With a third axis of three, red, green and blue, it is a colour image.
    """
    meta = b"".join(
        [
            element(2, 1, "OB", b"\0\1"),
            element(2, 2, "UI", _MR_STORAGE),
            element(2, 3, "UI", f"{series}.{number}"),
            element(2, 0x10, "UI", "1.2.840.10008.1.2.1"),
            element(2, 0x12, "UI", "1.2.3.4"),
        ]
    )
    body = b"".join(
        [
            element(8, 0x16, "UI", _MR_STORAGE),
            element(8, 0x18, "UI", f"{series}.{number}"),
            element(8, 0x60, "CS", "MR"),
            element(8, 0x103E, "LO", description),
            element(0x10, 0x10, "PN", "Phantom"),
            element(0x10, 0x20, "LO", patient),
            element(0x18, 0x50, "DS", _numbers([thickness])),
            element(0x20, 0xD, "UI", study),
            element(0x20, 0xE, "UI", series),
            element(0x20, 0x11, "IS", series.rsplit(".", 1)[-1]),
            element(0x20, 0x13, "IS", str(number)),
            element(0x20, 0x32, "DS", _numbers(position)),
            element(0x20, 0x37, "DS", _numbers(directions)),
            element(0x28, 2, "US", struct.pack("<H", 3 if pixels.ndim == 3 else 1)),
            element(0x28, 4, "CS", "RGB" if pixels.ndim == 3 else "MONOCHROME2"),
            *([element(0x28, 6, "US", struct.pack("<H", 0))] if pixels.ndim == 3 else []),
            element(0x28, 0x10, "US", struct.pack("<H", pixels.shape[0])),
            element(0x28, 0x11, "US", struct.pack("<H", pixels.shape[1])),
            element(0x28, 0x30, "DS", _numbers(spacing)),
            element(0x28, 0x100, "US", struct.pack("<H", 16)),
            element(0x28, 0x101, "US", struct.pack("<H", 16)),
            element(0x28, 0x102, "US", struct.pack("<H", 15)),
            element(0x28, 0x103, "US", struct.pack("<H", 0)),
            element(0x7FE0, 0x10, "OW", np.ascontiguousarray(pixels, "<u2").tobytes()),
        ]
    )
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    *,
    description: str,
    series: str,
    prefix: str = "IM",
    patient: str = "PHANTOM",
) -> list[Path]:
    """A volume (rows, columns, slices) with its affine to right-anterior-superior mm, as one file a slice.

    The files' names run against the slices' order, so that no reader can go by them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    size = np.linalg.norm(to_lps[:3, :3], axis=0)
    # a row's direction is that along which columns rise
    directions = [*(to_lps[:3, 1] / size[1]), *(to_lps[:3, 0] / size[0])]
    paths = []
    for k in range(volume.shape[2]):
        path = folder / f"{prefix}{volume.shape[2] - k:04d}.dcm"
        content = slice_bytes(
            volume[:, :, k],
            (to_lps @ [0, 0, k, 1])[:3],
            directions,
            size[:2],
            thickness=size[2],
            series=series,
            description=description,
            number=k + 1,
            patient=patient,
        )
        path.write_bytes(content)
        paths.append(path)
    return paths
