from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg_ext.phantoms import Phantom, Tissue, best_threshold_dice, make_phantom
from medseg_ext.phantoms.contrast import SEQUENCES, lesion_table, tissue_table

SMALL = (96, 96, 24)
SEEDS = range(6)


@pytest.fixture(scope="module")
def study() -> Phantom:
    return make_phantom(4, kind="high", volume_ml=60.0, sequences=SEQUENCES)


@pytest.fixture(scope="module")
def small() -> list[Phantom]:
    return [make_phantom(seed, SMALL) for seed in range(6)]


@pytest.fixture(scope="module")
def full_plane() -> list[Phantom]:
    return [make_phantom(seed, (256, 256, 20), (0.9375, 0.9375, 6.0), ("flair",)) for seed in SEEDS]


def test_same_seed_same_bytes(small: list[Phantom]) -> None:
    again = make_phantom(3, SMALL)
    assert again.label.tobytes() == small[3].label.tobytes()
    assert [v.tobytes() for v in again.images.values()] == [v.tobytes() for v in small[3].images.values()]


def test_another_seed_another_head(small: list[Phantom]) -> None:
    assert not np.array_equal(small[0].tissue, small[1].tissue)
    assert not np.array_equal(small[0].images["flair"], small[1].images["flair"])


def test_a_sequence_does_not_depend_on_the_others(small: list[Phantom]) -> None:
    alone = make_phantom(2, SMALL, sequences=("t1ce",))
    np.testing.assert_array_equal(alone.images["t1ce"], small[2].images["t1ce"])


def test_shapes_types_and_geometry(study: Phantom) -> None:
    assert list(study.images) == list(SEQUENCES)
    for image in study.images.values():
        assert image.shape == (256, 256, 24)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0
    assert study.label.dtype == study.mask.dtype == np.uint8
    assert study.spacing == (0.9375, 0.9375, 6.0)
    assert nib.orientations.aff2axcodes(study.affine) == ("P", "L", "S")
    np.testing.assert_allclose(nib.affines.voxel_sizes(study.affine), study.spacing)
    assert set(np.unique(study.label)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(study.mask, study.label > 0)


def test_every_tissue_is_there(study: Phantom) -> None:
    assert set(np.unique(study.tissue)) == {int(tissue) for tissue in Tissue}


def test_the_head_is_in_the_field_of_view(study: Phantom) -> None:
    rows, columns = np.nonzero((study.tissue != Tissue.AIR)[:, :, 10:].any(2))
    assert 180 < np.ptp(rows) * study.spacing[0] < 230
    assert 135 < np.ptp(columns) * study.spacing[1] < 185
    # anterior is up: the eyes lie in the upper third of the rows
    assert np.nonzero(study.tissue == Tissue.EYE)[0].mean() < 256 / 3
    # the vertex is narrower than the middle of the head
    area = (study.tissue != Tissue.AIR).sum((0, 1))
    assert area[-2] < 0.6 * area[14]


def test_contrast_between_tissues(study: Phantom) -> None:
    healthy = ~ndimage.binary_dilation(study.mask > 0, iterations=3)

    def mean(sequence: str, tissue: Tissue) -> float:
        return float(np.median(study.images[sequence][(study.tissue == tissue) & healthy]))

    for sequence in ("t1", "t1ce"):
        assert mean(sequence, Tissue.WHITE) > mean(sequence, Tissue.GREY) > mean(sequence, Tissue.VENTRICLE)
    assert mean("t1", Tissue.FAT) > mean("t1", Tissue.WHITE)
    assert mean("t2", Tissue.VENTRICLE) > mean("t2", Tissue.GREY) > mean("t2", Tissue.WHITE)
    assert mean("flair", Tissue.GREY) > mean("flair", Tissue.WHITE) > 2 * mean("flair", Tissue.VENTRICLE)
    assert mean("flair", Tissue.FAT) > mean("flair", Tissue.GREY)
    assert mean("t1ce", Tissue.SINUS) > mean("t1ce", Tissue.WHITE) > mean("t1", Tissue.SINUS) * 0.9


def test_the_lesion_looks_like_a_glioma(study: Phantom) -> None:
    near = ndimage.binary_dilation(study.mask > 0, iterations=12) & (study.mask == 0) & (study.tissue == Tissue.WHITE)

    def ratio(sequence: str, label: int) -> float:
        image = study.images[sequence]
        return float(np.median(image[study.label == label]) / np.median(image[near]))

    assert ratio("flair", 2) > 1.25
    assert ratio("t2", 2) > 1.25
    assert ratio("t1", 2) < 1
    assert ratio("t1ce", 4) > 1.3
    assert ratio("t1ce", 4) > 1.3 * ratio("t1", 4)
    assert ratio("t1ce", 1) < 0.9


def test_the_rim_surrounds_the_core(study: Phantom) -> None:
    core = study.label == 1
    shell = ndimage.binary_dilation(core, np.ones((3, 3, 1))) & ~core
    assert (study.label[shell] == 4).mean() > 0.7
    assert (study.label[shell] > 0).mean() > 0.8  # the rest is ventricle, fissure or the brain's border


def test_the_lesion_lies_in_the_brain_and_has_the_volume_asked_for(study: Phantom) -> None:
    assert study.brain[study.mask > 0].mean() > 0.98
    assert np.isin(study.tissue[study.mask > 0], [Tissue.VENTRICLE, Tissue.BONE, Tissue.AIR]).mean() < 0.02
    assert study.volume_ml == pytest.approx(60.0, rel=0.25)


def test_low_grade_lesions_do_not_enhance() -> None:
    phantom = make_phantom(1, SMALL, kind="low")
    assert phantom.kind == "low"
    assert set(np.unique(phantom.label)) <= {0, 1, 2}
    assert phantom.mask.any()


def test_without_a_lesion() -> None:
    phantom = make_phantom(1, SMALL, lesion=False, sequences=("flair",))
    assert phantom.kind == "none"
    assert not phantom.mask.any()


def test_skull_stripped_isotropic_volume() -> None:
    phantom = make_phantom(2, (80, 80, 52), (3.0, 3.0, 3.0), SEQUENCES, skull_stripped=True)
    for image in phantom.images.values():
        assert (image[~phantom.brain] == 0).all()
        assert (image[phantom.brain] > 0).all()
    assert 900 < phantom.brain.sum() * 0.027 < 2000  # ml
    assert phantom.brain[phantom.mask > 0].mean() > 0.95


def test_the_same_head_on_another_grid() -> None:
    coarse = make_phantom(7, (64, 64, 36), (4.0, 4.0, 4.0), ("flair",))
    fine = make_phantom(7, (128, 128, 72), (2.0, 2.0, 2.0), ("flair",))
    assert fine.volume_ml == pytest.approx(coarse.volume_ml, rel=0.2)

    def centre(p: Phantom) -> np.ndarray:
        return nib.affines.apply_affine(p.affine, np.argwhere(p.mask).mean(0))

    assert np.linalg.norm(centre(coarse) - centre(fine)) < 6


def test_noise_is_rician() -> None:
    """In air the magnitude of complex noise has mean sigma * sqrt(pi / 2) and mean square 2 * sigma ** 2."""
    clean, noisy = (make_phantom(5, SMALL, sequences=("flair",), noise=level) for level in (0.0, 0.04))
    air = noisy.images["flair"][:16, :16].astype(np.float64)
    assert (clean.images["flair"][:16, :16] < 1e-3 * clean.images["flair"].max()).all()
    assert air.mean() / np.sqrt((air**2).mean()) == pytest.approx(np.sqrt(np.pi) / 2, rel=0.02)


def test_bias_field_changes_brightness_smoothly() -> None:
    flat, curved = (make_phantom(5, SMALL, sequences=("flair",), noise=0.0, bias=level) for level in (0.0, 0.4))
    inside = flat.brain & (flat.images["flair"] > 0)
    field = (curved.images["flair"] / np.maximum(flat.images["flair"], 1e-6))[inside]
    assert 0.55 < field.min() < 0.9 or 1.1 < field.max() < 1.45
    assert field.std() > 0.03


def test_seeds_vary_in_volume_site_kind_and_field(full_plane: list[Phantom]) -> None:
    volumes = np.array([p.volume_ml for p in full_plane])
    centres = np.array([nib.affines.apply_affine(p.affine, np.argwhere(p.mask).mean(0)) for p in full_plane])
    assert (volumes > 0.8).all()
    assert (volumes < 110).all()
    assert ((volumes > 4) & (volumes < 65)).mean() >= 0.6
    assert volumes.std() > 8
    assert (centres.std(0) > (10, 10, 5)).all()
    assert (centres[:, 0] > 0).any()  # both sides
    assert (centres[:, 0] < 0).any()
    assert {p.kind for p in full_plane} == {"low", "high"}


def test_within_the_brain_the_lesion_stands_out(full_plane: list[Phantom]) -> None:
    """What a reader compares with is the tissue beside the lesion, not the whole stack."""
    for phantom in full_plane:
        lesion = phantom.mask > 0
        near = ndimage.binary_dilation(lesion, np.ones((3, 3, 1)), iterations=10) & ~lesion
        near &= np.isin(phantom.tissue, [Tissue.WHITE, Tissue.GREY, Tissue.DEEP_GREY])
        image = phantom.images["flair"]
        assert np.median(image[lesion]) > 1.15 * np.median(image[near])


def test_best_threshold_dice_by_hand() -> None:
    # >= 3 takes {5, 4, 3}: two of two hits, 2 * 2 / (3 + 2); >= 5 takes one hit: 2 / 3
    image, mask = np.array([5.0, 4.0, 3.0, 1.0]), np.array([1, 0, 1, 0])
    assert best_threshold_dice(image, mask) == (0.8, 3.0)
    # equal values cannot be parted
    assert best_threshold_dice(np.array([2.0, 2.0]), np.array([1, 0])) == (pytest.approx(2 / 3), 2.0)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_tables_cover_every_tissue_and_label(sequence: str) -> None:
    rng = np.random.default_rng(0)
    table = tissue_table(sequence, rng)
    assert table[Tissue.AIR] == 0
    assert (np.delete(table, Tissue.AIR) > 0).all()
    assert (lesion_table(sequence, "high", rng) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": ("dwi",)}, "found dwi, allowed any of t1, t1ce, t2, flair"),
        ({"sequences": ()}, "found none"),
        ({"shape": (0, 5, 5)}, "allowed three positive sizes"),
        ({"spacing": (1.0, 1.0, 0.0)}, "allowed three positive lengths"),
        ({"kind": "middle"}, "found 'middle'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_phantom(0, **{"shape": (16, 16, 4), **arguments})
