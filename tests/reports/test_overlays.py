import numpy as np
import pytest
import torch
from PIL import Image

from medseg_ext.reports import draw_overlay, example_overlay, take_snapshot
from medseg_ext.reports.canvas import pack, unpack
from medseg_ext.reports.overlays import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    FileNames,
    _rgb,
    choose_slices,
    file_name,
    worst_median_best,
)


def near(picture, colour):
    """How many pixels have about this colour."""
    return int((np.abs(picture[..., :3].astype(int) - _rgb(colour)).max(-1) < 40).sum())


def drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def planes(depth, *occupied):
    mask = np.zeros((2, 2, depth), bool)
    mask[0, 0, list(occupied)] = True
    return mask


def test_slices_with_lesion_and_their_neighbours():
    assert choose_slices(planes(10, 4, 5)) == [3, 4, 5, 6]
    assert choose_slices(planes(10, 0)) == [0, 1]
    assert choose_slices(planes(20, 2, 15)) == [1, 2, 3, 14, 15, 16]
    assert choose_slices(planes(3)) == [0, 1, 2]


def test_many_slices_are_thinned_out_evenly():
    assert choose_slices(planes(100, *range(10, 90)), 5) == [9, 29, 49, 70, 90]
    assert len(choose_slices(planes(100))) == 12


def test_roles():
    assert worst_median_best([0.5, 0.9, 0.1, 0.7, 0.3]) == {"worst": 2, "median": 0, "best": 1}
    assert worst_median_best([0.5, 0.9, 0.1, 0.7]) == {"worst": 2, "median": 0, "best": 1}
    assert worst_median_best([0.5, float("nan"), 0.1]) == {"worst": 2, "best": 0}
    assert worst_median_best([0.5]) == {"worst": 0}
    assert worst_median_best([1.0, 1.0, 1.0]) == {"worst": 0, "median": 1, "best": 2}
    assert worst_median_best([]) == {}


def test_packing_keeps_the_mask():
    mask = np.random.default_rng(0).random((5, 7, 3)) > 0.5
    np.testing.assert_array_equal(unpack(pack(mask), mask.shape), mask)


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_picture_shows_both_outlines(head, tmp_path, depth):
    image, truth = head(depth)
    snapshot = take_snapshot("p", image, np.roll(truth, 4, 0), truth, caption="Dice 0.5")
    picture = drawn(draw_overlay(snapshot, tmp_path / "p.png"))
    legend = 120  # what the legend alone may hold
    assert near(picture, TRUTH_COLOUR) > legend
    assert near(picture, PREDICTION_COLOUR) > legend


def test_prediction_only_and_empty(head, tmp_path):
    image, truth = head(lesion=False)
    picture = drawn(draw_overlay(take_snapshot("p", image, truth), tmp_path / "p.png"))
    assert near(picture, TRUTH_COLOUR) == 0
    assert 0 < near(picture, PREDICTION_COLOUR) < 150  # the legend


def test_names_are_not_taken_for_formulas(head, tmp_path):
    image, truth = head(2)
    draw_overlay(take_snapshot("a$b_{$", image, truth, caption="$x"), tmp_path / "p.png")


def test_crop_holds_the_head_and_both_masks(head):
    image, truth = head()
    pred = np.zeros_like(truth)
    pred[0, 0, 0] = True
    assert take_snapshot("p", image, truth, truth).shape[:2] == (56, 40)
    assert take_snapshot("p", image, pred, truth).shape[:2] == (60, 44)
    assert take_snapshot("p", image, pred).slices == (0, 1)


def test_memory_is_small(head):
    image, truth = head(depth=30, rows=256, columns=256)
    assert take_snapshot("p", image, truth, truth).nbytes < 500_000


def test_pixels_that_are_not_square(head, tmp_path):
    image, truth = head(1)
    tall = drawn(draw_overlay(take_snapshot("p", image, truth, spacing=(2, 1, 1)), tmp_path / "t.png"))
    wide = drawn(draw_overlay(take_snapshot("p", image, truth, spacing=(1, 2, 1)), tmp_path / "w.png"))

    def shape(picture):  # of the head on the sheet
        bright = picture[90:].max(-1) > 60
        return np.ptp(np.flatnonzero(bright.any(1))) / np.ptp(np.flatnonzero(bright.any(0)))

    assert shape(tall) / shape(wide) == pytest.approx(4, rel=0.08)


def test_snapshot_refuses(head):
    image, truth = head()
    with pytest.raises(ValueError, match="channel: found 3, allowed 0 to 2"):
        take_snapshot("p", image, truth, channel=3)
    with pytest.raises(ValueError, match="image: found shape"):
        take_snapshot("p", image[..., :3], truth)


def test_file_names():
    assert file_name("TCGA_CS_4941_19960909") == "TCGA_CS_4941_19960909"
    assert file_name("../a b/c:d") == "_a_b_c_d"
    assert file_name("..") == "patient"


def test_no_two_file_names_are_alike():
    names = FileNames()
    assert [names(x) for x in ("a b", "a_b", "A:B", "a_b_2", "a b")] == ["a_b", "a_b_2", "A_B_3", "a_b_2_2", "a_b"]
    assert [names("x", "worst"), names("worst_x"), names("x")] == ["worst_x", "worst_x_2", "x"]


def test_example_by_hand():
    image = np.zeros((7, 7))
    square = np.zeros((7, 7), bool)
    square[2:5, 2:5] = True
    picture = example_overlay(image, square, square)
    green, orange = _rgb(TRUTH_COLOUR), _rgb(PREDICTION_COLOUR)
    assert picture.shape == (7, 7, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[1, 3]) == green  # just outside
    assert tuple(picture[2, 3]) == orange  # just inside
    assert tuple(picture[3, 3]) == (0, 0, 0)


@pytest.mark.parametrize("bring", [np.asarray, lambda array: torch.from_numpy(np.asarray(array, np.float32))])
def test_example_takes_what_training_has(head, bring):
    image, truth = head()
    volume = example_overlay(bring(image), bring(truth[None]), bring(truth[None] * 0.9))
    middle = int(truth.sum((0, 1)).argmax())
    single = example_overlay(
        bring(image[..., middle]), bring(truth[None, ..., middle]), bring(truth[None, ..., middle])
    )
    np.testing.assert_array_equal(volume, single)
    assert near(single, TRUTH_COLOUR)
    assert not near(example_overlay(bring(image[0, ..., 0]), None, bring(truth[..., 0])), TRUTH_COLOUR)


def test_example_refuses():
    with pytest.raises(ValueError, match="pred: found shape"):
        example_overlay(np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="image: found shape"):
        example_overlay(np.zeros((4, 4)), None, np.zeros((4, 5)))
