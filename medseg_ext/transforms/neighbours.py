"""Slices of a volume together with their neighbours: the input of a 2.5-D network."""

from __future__ import annotations


def neighbour_indices(index: int, depth: int, neighbours: int) -> list[int]:
    """Indices ``index - neighbours .. index + neighbours``, the outermost slice repeated at the ends of the volume."""
    return [min(max(index + step, 0), depth - 1) for step in range(-neighbours, neighbours + 1)]
