"""Dropping small lesions, on rows of voxels of 1 ml."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from monai.transforms import Transform

from medseg_ext.transforms import DropSmallLesions, DropSmallLesionsd

ML = (10.0, 10.0, 10.0)

#: A lesion of 3 voxels with core and enhancing tumour, a lesion of 2 with a core, one of 1.
CORE = [0.1, 0.8, 0.7, 0.2, 0.1, 0.6, 0.2, 0.1, 0.1]
WHOLE = [0.2, 0.9, 0.9, 0.9, 0.3, 0.7, 0.7, 0.1, 0.6]
ENHANCING = [0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]


def head(core: list[float] = CORE, whole: list[float] = WHOLE, enhancing: list[float] = ENHANCING) -> torch.Tensor:
    """(3, 1, n, 1)."""
    return torch.tensor([core, whole, enhancing])[:, None, :, None]


def rows(probability: torch.Tensor) -> torch.Tensor:
    return probability[:, 0, :, 0]


def expected(*regions: list[float]) -> torch.Tensor:
    return torch.tensor(regions)


def without(values: list[float], *places: int) -> list[float]:
    return [0.0 if place in places else value for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("smallest", "dropped"),
    [(0.0, ()), (1.0, ()), (1.5, (8,)), (2.0, (8,)), (2.1, (5, 6, 8)), (3.0, (5, 6, 8)), (3.1, (1, 2, 3, 5, 6, 8))],
)
def test_a_small_lesion_loses_all_regions(smallest: float, dropped: tuple[int, ...]) -> None:
    result = DropSmallLesions(smallest_lesion=smallest)(head(), ML)
    wanted = expected(*(without(region, *dropped) for region in (CORE, WHOLE, ENHANCING)))
    assert torch.equal(rows(result), wanted)


def test_voxels_are_as_large_as_they_are_told_to_be() -> None:
    drop = DropSmallLesions(smallest_lesion=2.0)
    everywhere = torch.tensor([region >= 0.5 for region in head().amax((0, 1, 3))])
    in_millilitres = {
        (10.0, 10.0, 10.0): [1, 1, 1, 1, 1, 0],  # of 3, 2 and 1 ml
        (10.0, 10.0, 20.0): [1, 1, 1, 1, 1, 1],  # of 6, 4 and 2 ml
        (10.0, 10.0, 7.0): [1, 1, 1, 0, 0, 0],  # of 2.1, 1.4 and 0.7 ml
        (1.0, 1.0, 1.0): [0, 0, 0, 0, 0, 0],
    }
    for spacing, kept in in_millilitres.items():
        assert (rows(drop(head(), spacing))[1][everywhere] > 0).int().tolist() == kept
    assert (rows(drop(head()))[1][everywhere] == 0).all()  # 1 mm where nothing is said


def test_corners_touch() -> None:
    whole = torch.zeros(3, 3, 3, 3)
    whole[1, 0, 0, 0] = whole[1, 1, 1, 1] = whole[1, 2, 2, 2] = 0.9
    assert torch.equal(DropSmallLesions(smallest_lesion=3.0)(whole, ML), whole)
    whole[1, 1, 1, 1] = 0.0
    assert not DropSmallLesions(smallest_lesion=3.0)(whole, ML).any()


def test_probabilities_at_the_threshold_are_inside() -> None:
    probability = head([0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0])
    assert torch.equal(DropSmallLesions(smallest_lesion=2.0)(probability, ML), probability)
    assert rows(DropSmallLesions(smallest_lesion=2.1)(probability, ML))[1].tolist() == [0, 0, 0]
    # at 0.6 there is no lesion that could be dropped
    assert torch.equal(DropSmallLesions(0.6, smallest_lesion=2.1)(probability, ML), probability)


def test_a_threshold_each() -> None:
    probability = head([0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0])
    result = DropSmallLesions((0.2, 0.7, 0.5), smallest_lesion=2.0)(probability, ML)
    assert torch.equal(rows(result), expected([0, 0, 0, 0], [0, 0, 0.6, 0], [0, 0, 0, 0]))


def test_a_core_outside_the_whole_tumour_counts_as_lesion() -> None:
    core, whole, enhancing = [0.9, 0.1, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9], [0.1, 0.1, 0.1, 0.1]
    result = DropSmallLesions(smallest_lesion=2.0)(head(core, whole, enhancing), ML)
    # the second core makes one lesion of two with the whole tumour beside it, the first is by itself
    assert torch.equal(rows(result), expected(without(core, 0), without(whole, 0), without(enhancing, 0)))
    alone = [0.1, 0.9, 0.1, 0.1]
    for place in range(3):
        regions = [alone if place == region else enhancing for region in range(3)]
        dropped = DropSmallLesions(smallest_lesion=2.0)(head(*regions), ML)
        assert torch.equal(rows(dropped), expected(*(without(region, 1) for region in regions)))


def test_too_little_enhancing_tumour_is_core() -> None:
    core, whole, enhancing = [0.75, 0.3, 0.9, 0.1], [0.9, 0.9, 0.9, 0.9], [0.7, 0.8, 0.4, 0.1]
    probability = head(core, whole, enhancing)
    result = DropSmallLesions(smallest_enhancing=2.5)(probability, ML)
    assert torch.equal(rows(result), expected([0.75, 0.8, 0.9, 0.1], whole, [0, 0, 0, 0]))
    for enough in (0.0, 1.0, 2.0):
        assert torch.equal(DropSmallLesions(smallest_enhancing=enough)(probability, ML), probability)


def test_enhancing_tumour_is_counted_in_the_whole_head() -> None:
    core, whole, enhancing = [0.9, 0.1, 0.1, 0.9], [0.9, 0.1, 0.1, 0.9], [0.9, 0.1, 0.1, 0.9]
    probability = head(core, whole, enhancing)
    assert torch.equal(DropSmallLesions(smallest_enhancing=2.0)(probability, ML), probability)


def test_enhancing_tumour_of_dropped_lesions_does_not_count() -> None:
    core, whole, enhancing = [0.9, 0.1, 0.6, 0.6], [0.9, 0.1, 0.9, 0.9], [0.9, 0.1, 0.8, 0.1]
    result = DropSmallLesions(smallest_lesion=2.0, smallest_enhancing=2.0)(head(core, whole, enhancing), ML)
    assert torch.equal(rows(result), expected([0, 0.1, 0.8, 0.6], [0, 0.1, 0.9, 0.9], [0, 0, 0, 0]))


def test_nothing_to_do() -> None:
    nothing = torch.full((3, 2, 3, 2), 0.4)
    for options in ({}, {"smallest_lesion": 5.0}, {"smallest_enhancing": 5.0}):
        assert torch.equal(DropSmallLesions(**options)(nothing, ML), nothing)
    assert torch.equal(DropSmallLesions()(head(), ML), head())


def test_the_input_is_left_unchanged() -> None:
    probability = head()
    result = DropSmallLesions(smallest_lesion=4.0, smallest_enhancing=4.0)(probability, ML)
    assert not torch.equal(result, probability)
    assert torch.equal(probability, head())
    assert DropSmallLesions()(probability, ML) is not probability


def test_metadata_stay() -> None:
    probability = MetaTensor(head(), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    result = DropSmallLesions(smallest_lesion=2.1)(probability, ML)
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, probability.affine)
    assert rows(result)[1].tolist() == expected(without(WHOLE, 5, 6, 8))[0].tolist()


@settings(deadline=None)
@given(
    arrays(np.float32, (3, 4, 3, 2), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75])),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_what_is_left_is_large_enough(values: np.ndarray, lesion: int, enhancing: int) -> None:
    probability = torch.from_numpy(values)
    lesions = DropSmallLesions(smallest_lesion=lesion)(probability, ML)
    same, dropped = (lesions == probability).all(0), (lesions == 0).all(0)
    assert (same | dropped).all()
    drop = DropSmallLesions(smallest_lesion=lesion, smallest_enhancing=enhancing)
    result = drop(probability, ML)
    assert torch.equal(drop(result, ML), result)
    # no voxel of a lesion that stays is lost: what enhanced is core
    assert torch.equal((result >= 0.5).any(0), (lesions >= 0.5).any(0))
    assert int((result[2] >= 0.5).sum()) not in range(1, enhancing)


def test_dictionary() -> None:
    before = head()
    data = {"pred": before, "other": head(), "spacing": ML}
    transform = DropSmallLesionsd("pred", smallest_lesion=2.0, smallest_enhancing=2.0)
    assert isinstance(transform, Transform)
    result = transform(data)
    assert torch.equal(result["pred"], DropSmallLesions(0.5, 2.0, 2.0)(head(), ML))
    assert torch.equal(result["other"], head())
    assert data["pred"] is before
    assert torch.equal(before, head())


def test_dictionary_without_or_with_another_spacing() -> None:
    drop = DropSmallLesionsd(["pred", "missing"], 0.5, 0.002, spacing_key="edges", allow_missing_keys=True)
    wanted = expected(without(WHOLE, 8))
    assert torch.equal(rows(drop({"pred": head(), "spacing": ML})["pred"])[1:2], wanted)
    as_batched = [torch.tensor(edge, dtype=torch.float64) for edge in (1.0, 1.0, 2.0)]
    assert torch.equal(drop({"pred": head(), "edges": as_batched})["pred"], head())
    with pytest.raises(KeyError):
        DropSmallLesionsd("missing")({"pred": head()})


def test_enhancing_that_is_too_small_becomes_core_above_the_cores_own_threshold() -> None:
    probability = torch.tensor([0.3, 0.9, 0.6]).view(3, 1, 1, 1)
    dropped = DropSmallLesions((0.8, 0.5, 0.5), smallest_enhancing=1.0)(probability)
    torch.testing.assert_close(dropped.flatten(), torch.tensor([0.8, 0.9, 0.0]))
