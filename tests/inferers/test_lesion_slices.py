"""Looking at a few slices first, against looking at all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.inferers import LesionSliceInferer, SliceStackInferer
from medseg_ext.inferers.slice_stack import OUTSIDE_LOGIT

PLAIN = {"neighbours": 0, "divisor": 1, "margin": 0, "tolerance": 1e9, "amp": False}
AIR, TISSUE, LESION = -1.0, -0.5, 1.0


def head(depth: int, size: int = 12) -> torch.Tensor:
    """(1, 1, size, size, depth): tissue with one row and column of air about it."""
    volume = torch.full((1, 1, size, size, depth), AIR)
    volume[:, :, 1:-1, 1:-1] = TISSUE
    return volume


class Watched:
    """A network that says tenfold what a pixel holds, and remembers the shapes it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return 10 * x[:, :1]


def looked_at(result: torch.Tensor) -> list[int]:
    return [s for s in range(result.shape[-1]) if (result[0, 0, :, :, s] > OUTSIDE_LOGIT).any()]


def test_by_hand() -> None:
    """Looks at 1, 4, 7, 10; the lesion in 5 to 8 shows in 7, is followed to 4 and to 9, and no further."""
    volume = head(12)
    volume[..., 4:6, 4:6, 5:9] = LESION
    result = LesionSliceInferer(stride=3, least_looks=4, **PLAIN)(volume, Watched())
    assert looked_at(result) == [1, 4, 5, 6, 7, 8, 9, 10]
    assert torch.equal(result > 0, volume > 0)


def test_a_gap_between_two_finds_is_filled_at_once() -> None:
    volume = head(9)
    volume[..., 4:6, 4:6, 0:6] = LESION
    network = Watched()
    result = LesionSliceInferer(stride=3, least_looks=3, batch_size=9, **PLAIN)(volume, network)
    # looks 1, 4, 7; then 2 and 3 together; then 0 and 5; then 6, which ends it
    assert [shape[0] for shape in network.shapes] == [3, 2, 2, 1]
    assert looked_at(result) == list(range(8))
    assert torch.equal(result > 0, volume > 0)


def test_the_box_around_a_find() -> None:
    volume = head(3, size=40)
    volume[..., 10:14, 30:33, :] = LESION
    network = Watched()
    options = {"stride": 3, "least_looks": 1, "lesion_box": (8, 8), "lesion_margin": 3, "batch_size": 1}
    LesionSliceInferer(**options, **(PLAIN | {"divisor": 4}))(volume, network)
    # 4 + 3 + 3 rows and 3 + 3 + 3 columns, in whole blocks of four
    assert network.shapes == [(1, 1, 40, 40), (1, 1, 12, 12), (1, 1, 12, 12)]


def test_a_lesion_between_two_looks_is_missed() -> None:
    """As the description says: least_looks is there for that."""
    volume = head(8)
    volume[..., 4:6, 4:6, 3:4] = LESION  # looks at 2 and 6
    assert not (LesionSliceInferer(stride=4, least_looks=2, **PLAIN)(volume, Watched()) > 0).any()
    found = LesionSliceInferer(stride=4, least_looks=8, **PLAIN)(volume, Watched())
    assert torch.equal(found > 0, volume > 0)


@pytest.mark.parametrize(
    ("depth", "looks"),
    [
        (1, [0]),
        (6, [0, 1, 2, 3, 4, 5]),
        (7, [0, 1, 2, 3, 4, 5, 6]),
        (14, list(range(1, 14, 2))),
        (40, list(range(2, 40, 4))),
    ],
)
def test_where_nothing_is_found_only_the_looks_are_computed(depth: int, looks: list[int]) -> None:
    result = LesionSliceInferer(stride=4, least_looks=7, **PLAIN)(head(depth), Watched())
    assert looked_at(result) == looks


def test_all_slices_are_all_slices() -> None:
    volume = torch.randn(2, 2, 12, 10, 9, generator=torch.Generator().manual_seed(0))
    network = torch.nn.Conv2d(6, 3, 3, padding=1).eval()
    options = {**PLAIN, "neighbours": 1, "batch_size": 4}
    every = LesionSliceInferer(stride=1, **options)(volume, network)
    assert torch.equal(every, SliceStackInferer(**options)(volume, network))


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 24),
    stride=st.integers(1, 5),
    lesions=st.lists(st.tuples(st.integers(0, 23), st.integers(0, 8), st.integers(0, 8)), max_size=3),
    batch_size=st.integers(1, 5),
    mirror=st.booleans(),
)
def test_every_lesion_at_least_as_tall_as_the_stride_is_found_whole(
    depth: int, stride: int, lesions: list[tuple[int, int, int]], batch_size: int, mirror: bool
) -> None:
    volume = head(depth)
    for bottom, row, column in lesions:
        bottom = max(0, min(bottom, depth - stride))
        volume[..., row + 1 : row + 3, column + 1 : column + 3, bottom : bottom + stride] = LESION
    inferer = LesionSliceInferer(stride=stride, least_looks=1, batch_size=batch_size, mirror=mirror, **PLAIN)
    assert torch.equal(inferer(volume, Watched()) > 0, volume > 0)
