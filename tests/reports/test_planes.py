import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from medseg_ext.reports import draw_planes, take_planes
from medseg_ext.reports.canvas import unpack
from medseg_ext.reports.overlays import _rgb
from medseg_ext.reports.planes import COLOURS, choose_planes

ORDER = ("t1", "t1ce", "t2", "flair")
REGIONS = ("tc", "wt", "et")


def snapshot_of(image, pred, truth, spacing=(1, 1, 1), **changes):
    names = {"channel_order": ORDER, "regions": REGIONS} | changes
    return take_planes("p", image, pred, truth, spacing, **names)


def near(picture, colour):
    """How many pixels have about this colour."""
    return int((np.abs(picture.astype(int) - _rgb(colour)).max(-1) < 40).sum())


def drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def grey(cut, layer=0):
    return np.frombuffer(zlib.decompress(cut.image[layer]), np.uint8).reshape(cut.shape)


def test_planes_by_hand():
    masks = np.zeros((2, 6, 7, 8), bool)
    masks[0, 2, 1:6, 3] = True
    assert choose_planes(masks[:1]) == (2, 1, 3)
    masks[1, 5, 6, 7] = True  # one voxel counts as much as the five, all of which lie in one row and one slice
    assert choose_planes(masks) == (2, 6, 3)
    masks[0] = False
    assert choose_planes(masks) == (5, 6, 7)


def test_planes_of_empty_masks_lie_in_the_middle():
    empty = np.zeros((3, 6, 8, 10), bool)
    assert choose_planes(empty) == (3, 4, 5)
    assert choose_planes(empty, (slice(0, 2), slice(2, 8), slice(0, 10))) == (1, 5, 5)


def test_cuts_are_the_right_way_up():
    """Anterior, right and superior lie at the top, left and top."""
    image = np.full((4, 6, 8, 10), 50, np.float32)
    image[..., 0, 0, 0] = 0
    pred = np.zeros((3, 6, 8, 10), bool)
    pred[:, 1, 2, 8] = True  # near the front, on the right, near the top
    image[:, 1, 2, 8] = 100
    cuts = snapshot_of(image, pred, None, (1, 2, 3)).cuts
    assert [(cut.name, cut.number, cut.count, cut.shape, cut.size_mm) for cut in cuts] == [
        ("axial", 8, 10, (6, 8), (6, 16)),
        ("coronal", 1, 6, (10, 8), (30, 16)),
        ("sagittal", 2, 8, (10, 6), (30, 6)),
    ]
    for cut, place in zip(cuts, [(1, 2), (1, 2), (1, 1)], strict=True):
        for layer in (0, 1):
            assert np.unravel_index(grey(cut, layer).argmax(), cut.shape) == place
        assert np.argwhere(unpack(cut.pred[1], (*cut.shape, 1))[:, :, 0]).tolist() == [list(place)]


def test_every_outline_is_drawn(tumour, tmp_path):
    image, pred, truth = tumour(shift=4)
    picture = drawn(draw_planes(snapshot_of(image, pred, truth, caption="$x"), tmp_path / "p.png"))
    legend = 100  # what the legend alone may hold
    for region in REGIONS:
        for colour in COLOURS[region]:
            assert near(picture, colour) > legend


def test_without_truth_and_from_torch(tumour, tmp_path):
    image, pred, truth = tumour(shift=4)
    alone = snapshot_of(torch.from_numpy(image), torch.from_numpy(pred).float(), None)
    beside = drawn(draw_planes(snapshot_of(image, pred, truth), tmp_path / "p.png"))
    picture = drawn(draw_planes(alone, tmp_path / "q.png"))
    for solid, dashed in COLOURS.values():
        assert near(picture, solid) < near(beside, solid) / 3
        assert near(picture, dashed) > 100


def test_empty_regions_are_named(tumour, tmp_path):
    image, pred, truth = tumour()
    pred[2] = False
    snapshot = snapshot_of(image, pred, truth & False)
    assert snapshot.empty == {"et prediction", "tc truth", "wt truth", "et truth"}
    draw_planes(snapshot, tmp_path / "p.png")
    draw_planes(snapshot_of(image, pred & False, None), tmp_path / "q.png")


def test_a_missing_sequence_gives_way(tumour):
    image, pred, truth = tumour()
    assert snapshot_of(image, pred, truth).sequences == ("flair", "t1ce")
    image[[1, 3]] = 0
    assert snapshot_of(image, pred, truth).sequences == ("t2", "t1")
    assert snapshot_of(image * 0, pred, truth).sequences == ("flair", "t1ce")
    assert snapshot_of(image[:1], pred, truth, channel_order=["t1"]).sequences == ("t1", "t1")


def test_other_regions_are_drawn_too(tumour, tmp_path):
    image, pred, truth = tumour()
    snapshot = snapshot_of(image, pred, truth, regions=("wt", "cyst", "edema"))
    assert snapshot.layers == (("wt",), ("cyst", "edema"))
    draw_planes(snapshot, tmp_path / "p.png")


def test_crop_holds_the_head_and_the_masks(tumour):
    image, pred, truth = (np.pad(array, ((0, 0), (8, 8), (8, 8), (0, 0))) for array in tumour())
    assert snapshot_of(image, pred, truth).cuts[0].shape == (40, 36)
    pred[1, 2, 5, 13] = True
    assert snapshot_of(image, pred, truth).cuts[0].shape == (46, 39)


def test_memory_is_small(tumour):
    image, pred, truth = tumour(shape=(120, 120, 80))
    assert snapshot_of(image, pred, truth).nbytes < 60_000


def test_refuses(tumour):
    image, pred, truth = tumour()
    with pytest.raises(ValueError, match=r"pred: found shape \(2, 40, 36, 24\), allowed \(3, rows, columns, slices\)"):
        snapshot_of(image, pred[:2], truth[:2])
    with pytest.raises(ValueError, match=r"image: found shape \(4, 40, 36, 24\), allowed \(3, 40, 36, 24\)"):
        snapshot_of(image, pred, truth, channel_order=("t1", "t1ce", "flair"))
    with pytest.raises(ValueError, match="spacing: found"):
        snapshot_of(image, pred, truth, spacing=())
