"""However a head is stored, what is found in it lies at the same place in the world."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from batches import batch
from dicom_files import write_series
from monai.bundle import ConfigParser
from monai.data import DataLoader, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, CropForegroundd, SaveImaged
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from nibabel.processing import resample_from_to

from medseg_ext.errors import InputError
from medseg_ext.layouts import BRATS_RULES, study_from_path
from medseg_ext.transforms import LoadSequencesd, RegionsToLabelsd, RestoreRegionsd, SaveSegmentationd
from medseg_ext.workflow import Failures

ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in permutations(("LR", "PA", "SI"))
    for sides in product((0, 1), repeat=3)
]
#: Stored as rows backwards, columns leftwards, slices upwards, 1 mm.
PLS = np.array([[0, -1, 0, 46], [-1, 0, 0, 50], [0, 0, 1, -46], [0, 0, 0, 1.0]])
SHAPE = (100, 92, 92)
#: Intensity of the brain and of the tumour that each sequence shows: `t2` the core, `flair` all, `t1ce` what enhances.
SEQUENCES = {"t1": (600, 0.0), "t1ce": (500, 22.0), "t2": (400, 25.0), "flair": (450, 28.0)}


def sample(shape: tuple[int, ...], affine: np.ndarray, name: str, unit: float = 1.0) -> np.ndarray:
    """A smooth head with a tumour off its middle, worked out at the world position of every voxel."""
    index = np.indices(shape, np.float32).reshape(3, -1)
    x, y, z = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)
    brain, radius = SEQUENCES[name]
    edge = np.sqrt((x / 43) ** 2 + (y / 47) ** 2 + (z / 42) ** 2)
    image = brain / (1 + np.exp((edge - 0.95) * 40))
    if radius:
        away = np.sqrt((x - 5) ** 2 + ((y + 4) / 1.2) ** 2 + (z - 2) ** 2)
        image = image + 900 / (1 + np.exp((away - radius) / 2))
    return (image * unit).astype(np.float32)


def write(
    folder: Path,
    shape: tuple[int, ...] = SHAPE,
    affine: np.ndarray = PLS,
    axcodes: str = "PLS",
    unit: float = 1.0,
    dtype: type = np.float32,
) -> Path:
    turn = ornt_transform(axcodes2ornt("PLS"), axcodes2ornt(axcodes))
    folder.mkdir(parents=True)
    for name in SEQUENCES:
        image = apply_orientation(sample(shape, affine, name, unit), turn)
        stored = nibabel.Nifti1Image(np.ascontiguousarray(image, dtype=dtype), affine @ inv_ornt_aff(turn, shape))
        nibabel.save(stored, folder / f"{folder.name}_{name}.nii")
    return folder


def threshold(image: torch.Tensor) -> torch.Tensor:
    """Stands in for a network: each region is where its sequence is brighter than brain and half the tumour."""
    channels = {"t1": 0, "t1ce": 1, "t2": 2, "flair": 3}
    parts = []
    for name in ("t2", "flair", "t1ce"):
        channel = image[channels[name]]
        brain = torch.quantile(channel[channel > 0.15 * channel.max()].flatten()[::3], 0.2)
        parts.append(torch.sigmoid(8 * (channel / brain - 1 - 450 / SEQUENCES[name][0])))
    return torch.stack(parts)


def run(folder: Path, out: Path) -> nibabel.Nifti1Image:
    """Load, find, restore, save; the label map as written."""
    study = study_from_path(folder, rules=BRATS_RULES)
    data = LoadSequencesd()({"image": study})
    data["pred"] = threshold(data["image"].as_tensor())
    post = Compose(
        [RestoreRegionsd("pred"), RegionsToLabelsd("pred"), SaveSegmentationd("pred", batch(study), out, volumes=False)]
    )
    post(data)
    return nibabel.load(out / f"{study.patient}_seg.nii.gz")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> nibabel.Nifti1Image:
    root = tmp_path_factory.mktemp("plain")
    found = run(write(root / "plain"), root / "out")
    labels = np.asarray(found.dataobj)
    assert found.get_data_dtype() == np.uint8
    # about 4/3 pi r^3 times 1.2, for the radius of each region
    for values, radius in (((1, 2, 3), 28), ((1, 3), 25), ((3,), 22)):
        assert np.isin(labels, values).sum() == pytest.approx(4 / 3 * np.pi * 1.2 * radius**3, rel=0.12)
    return found


def dice(found: nibabel.Nifti1Image, plain: nibabel.Nifti1Image) -> list[float]:
    """Dice of the three regions in the plain run's world, by nibabel alone."""
    scores = []
    for values in ((1, 3), (1, 2, 3), (3,)):
        region = nibabel.Nifti1Image(np.isin(np.asarray(found.dataobj), values).astype(np.float32), found.affine)
        moved = np.asarray(resample_from_to(region, plain, order=1).dataobj) >= 0.5
        wanted = np.isin(np.asarray(plain.dataobj), values)
        scores.append(2 * (moved & wanted).sum() / (moved.sum() + wanted.sum()))
    return scores


@pytest.mark.parametrize("axcodes", ORIENTATIONS[1::5])
def test_flips_and_permutations_change_nothing(tmp_path: Path, plain: nibabel.Nifti1Image, axcodes: str) -> None:
    found = run(write(tmp_path / "p", axcodes=axcodes), tmp_path / "out")
    assert "".join(nibabel.aff2axcodes(found.affine)) == axcodes
    turn = ornt_transform(axcodes2ornt(axcodes), axcodes2ornt("PLS"))
    np.testing.assert_array_equal(apply_orientation(np.asarray(found.dataobj), turn), np.asarray(plain.dataobj))


def turned(degrees: float) -> np.ndarray:
    """A turn about all three axes of the world."""
    turn = np.eye(4)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        one = np.eye(4)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
        turn = turn @ one
    return turn


@pytest.mark.parametrize("degrees", [3, -30])
def test_oblique_storage(tmp_path: Path, plain: nibabel.Nifti1Image, degrees: float) -> None:
    affine = turned(degrees) @ PLS
    found = run(write(tmp_path / "p", (116, 112, 114), affine @ shift(-8, -10, -11), "LPI"), tmp_path / "out")
    assert min(dice(found, plain)) >= 0.99


def shift(*steps: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = steps
    return affine


# The outlines of coarser voxels are no nearer to those of finer ones than this.
@pytest.mark.parametrize(("size", "least"), [((0.5, 0.5, 1), 0.99), ((0.9, 1.1, 1.2), 0.985)])
def test_other_voxels(
    tmp_path: Path, plain: nibabel.Nifti1Image, size: tuple[float, float, float], least: float
) -> None:
    shape = tuple(int(n / edge) for n, edge in zip(SHAPE, size, strict=True))
    found = run(write(tmp_path / "p", shape, PLS @ np.diag([*size, 1]), "SAR"), tmp_path / "out")
    assert min(dice(found, plain)) >= least
    np.testing.assert_allclose(sorted(found.header.get_zooms()), sorted(size), rtol=1e-5)


@pytest.mark.parametrize(("unit", "dtype"), [(0.01, np.float32), (3.7, np.int16), (1000, np.float64)])
def test_another_unit_of_intensity(tmp_path: Path, plain: nibabel.Nifti1Image, unit: float, dtype: type) -> None:
    found = run(write(tmp_path / "p", unit=unit, dtype=dtype), tmp_path / "out")
    assert min(dice(found, plain)) >= 0.99


def test_each_sequence_on_its_own_grid(
    tmp_path: Path, plain: nibabel.Nifti1Image, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "p")
    for name, degrees, size in (("flair", 5, (0.8, 0.8, 2)), ("t2", -4, (1, 1, 1)), ("t1", 0, (1, 2, 3))):
        affine = turned(degrees) @ PLS @ np.diag([*size, 1])
        shape = tuple(int(n / edge) for n, edge in zip(SHAPE, size, strict=True))
        nibabel.save(nibabel.Nifti1Image(sample(shape, affine, name), affine), folder / f"p_{name}.nii")
    found = run(folder, tmp_path / "out")
    assert min(dice(found, plain)) >= 0.99
    assert found.shape == SHAPE  # that of t1ce
    assert "t1, t2, flair on another grid than p_t1ce.nii, resampled" in capsys.readouterr().err


def test_dicom(tmp_path: Path, plain: nibabel.Nifti1Image) -> None:
    affine = turned(8) @ PLS @ np.diag([1, 1, 1.5, 1])
    shape = (100, 92, 60)
    for i, name in enumerate(SEQUENCES):
        pixels = sample(shape, affine, name).astype(np.uint16)
        write_series(tmp_path / "p" / str(i), pixels, affine, description=name, series=f"1.2.3.{i}")
    found = run(tmp_path / "p", tmp_path / "out")
    assert min(dice(found, plain)) >= 0.985
    assert (found.shape, int(found.header["sform_code"])) == ((92, 100, 60), 1)


SMALL = PLS @ shift(0, 41, 38)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study in an orientation that is not the canonical one."""
    return write(tmp_path_factory.mktemp("small") / "p1", (20, 18, 16), SMALL, "RSA", dtype=np.int16)


def test_what_is_loaded(folder: Path) -> None:
    data = LoadSequencesd()({"image": folder, "note": "kept"})
    image = data["image"]
    assert isinstance(image, MetaTensor)
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (4, 20, 18, 16))
    assert data["present"].tolist() == [True] * 4
    assert (data["patient"], data["note"], data["spacing"]) == ("p1", "kept", (1.0, 1.0, 1.0))
    np.testing.assert_allclose(image.affine, SMALL, atol=1e-6)
    stored = nibabel.load(folder / "p1_t1ce.nii")
    np.testing.assert_allclose(image.meta["original_affine"], stored.affine, atol=1e-6)
    assert tuple(image.meta["spatial_shape"]) == stored.shape
    assert image.meta["filename_or_obj"] == str(folder / "p1_t1ce.nii")
    np.testing.assert_array_equal(image[0], sample((20, 18, 16), SMALL, "t1").astype(np.int16))


@pytest.mark.parametrize("as_what", [str, Path, "study", "list", "names", "file"])
def test_what_may_stand_for_a_study(folder: Path, as_what: object) -> None:
    files = [folder / f"p1_{name}.nii" for name in ("flair", "t2", "t1ce", "t1")]
    source: object = {
        str: str(folder),
        Path: folder,
        "study": study_from_path(folder, rules=BRATS_RULES),
        "list": [str(path) for path in files],
        "names": {"t1w": files[3], "T1Gd": files[2], "t2": files[1], "t2-flair": files[0]},
        "file": files[1],
    }[as_what]
    loaded = LoadSequencesd()({"image": source})
    assert torch.equal(loaded["image"].as_tensor(), LoadSequencesd()({"image": folder})["image"].as_tensor())


def test_regions_and_back(folder: Path, tmp_path: Path) -> None:
    """The label map comes back voxel for voxel, its own affine with it."""
    like = nibabel.load(folder / "p1_t1ce.nii")
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 4], np.uint8), like.shape)
    nibabel.save(nibabel.Nifti1Image(labels, like.affine), tmp_path / "p1_seg.nii.gz")
    data = LoadSequencesd("image", "label")({"image": folder, "label": tmp_path / "p1_seg.nii.gz"})
    label = data["label"]
    assert (label.dtype, label.meta["convention"]) == (torch.uint8, "brats2017")
    np.testing.assert_allclose(label.affine, data["image"].affine)
    data = Compose([RestoreRegionsd("label"), RegionsToLabelsd("label", "brats2017")])(data)
    np.testing.assert_array_equal(data["label"][0], labels)
    np.testing.assert_allclose(data["label"].affine, like.affine, atol=1e-6)


def test_the_study_s_own_label_map(folder: Path, tmp_path: Path) -> None:
    copy = write(tmp_path / "p2", (20, 18, 16), SMALL)
    with pytest.raises(InputError, match="no label map"):
        LoadSequencesd("image", "label")({"image": study_from_path(copy, rules=BRATS_RULES)})
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2], np.uint8), (20, 18, 16))
    nibabel.save(nibabel.Nifti1Image(labels, SMALL), copy / "p2_seg.nii.gz")
    assert LoadSequencesd("image", "label")({"image": copy})["label"].meta["convention"] == "brats2017"
    data = LoadSequencesd("image", "label", convention="decathlon")({"image": copy})
    np.testing.assert_array_equal(data["label"][0], labels == 2)
    assert "label" not in LoadSequencesd()({"image": copy})
    with pytest.raises(InputError, match="label convention: found 'brats'"):
        LoadSequencesd(convention="brats")


def test_batches(folder: Path) -> None:
    """What a loader collates and an engine takes apart again still finds its way back."""
    loader = DataLoader([LoadSequencesd()({"image": folder})], batch_size=1, collate_fn=list_data_collate)
    (data,) = decollate_batch(next(iter(loader)))
    data["pred"] = data["image"].as_tensor()[:3]
    restored = RestoreRegionsd("pred")(data)["pred"]
    for channel, name in zip(restored, ("t1", "t1ce", "t2"), strict=True):
        stored = nibabel.load(folder / f"p1_{name}.nii")
        np.testing.assert_array_equal(channel, np.asarray(stored.dataobj))
        np.testing.assert_allclose(restored.affine, stored.affine, atol=1e-6)


def test_a_crop_goes_back_to_its_place(folder: Path) -> None:
    data = LoadSequencesd()({"image": folder})
    whole = data["image"].as_tensor()
    data = CropForegroundd("image", "image", select_fn=lambda image: image > image.max() / 2, allow_smaller=True)(data)
    assert data["image"].shape != whole.shape
    data["pred"] = data["image"].as_tensor()[1:2]
    restored = RestoreRegionsd("pred")(data)["pred"][0].numpy()
    stored = np.asarray(nibabel.load(folder / "p1_t1ce.nii").dataobj, np.float32)
    np.testing.assert_array_equal(restored[restored != 0], stored[restored != 0])
    assert (restored != 0).sum() == (data["pred"] != 0).sum()


def test_labels_of_probabilities() -> None:
    probabilities = torch.tensor([[0.2, 0.45, 0.6], [0.7, 0.9, 0.3], [0.1, 0.1, 0.8]]).view(3, 3, 1, 1)
    label = RegionsToLabelsd("pred", "brats2017")({"pred": probabilities})["pred"]
    assert label.dtype == torch.uint8
    assert label.flatten().tolist() == [2, 2, 4]
    label = RegionsToLabelsd("pred", "decathlon", threshold=[0.4, 0.8, 0.9])({"pred": probabilities})["pred"]
    assert label.flatten().tolist() == [0, 2, 2]


def test_as_a_config_calls_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch of one study, one 4-D file and one that cannot be read, the way a bundle's config wires it."""
    root = tmp_path / "data"
    write(root / "p1", (20, 18, 16), SMALL, dtype=np.int16)
    stack = np.stack([sample((20, 18, 16), SMALL, name) for name in SEQUENCES], axis=-1)
    nibabel.save(nibabel.Nifti1Image(stack, SMALL), root / "p2.nii.gz")
    write(root / "p3", (20, 18, 16), SMALL)
    (root / "p3" / "p3_t2.nii").write_bytes(b"no volume")
    config = ConfigParser(
        {
            "imports": ["$import medseg_ext.layouts as layouts"],
            "channel_order": ["t1", "t1ce", "t2", "flair"],
            "patients": {
                "_target_": "medseg_ext.workflow.BatchPatients",
                "dataset_dir": str(root),
                "output_dir": str(tmp_path / "out"),
                "channel_order": "@channel_order",
                "rules": "$layouts.BRATS_RULES",
            },
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "medseg_ext.transforms.LoadSequencesd", "channel_order": "@channel_order"},
                    {"_target_": "CopyItemsd", "keys": "image", "names": "pred"},
                    {"_target_": "Lambdad", "keys": "pred", "func": "$lambda image: (image[1:] > 0).float()"},
                    {"_target_": "medseg_ext.transforms.RestoreRegionsd", "keys": "pred"},
                    {"_target_": "medseg_ext.transforms.RegionsToLabelsd", "keys": "pred"},
                    {
                        "_target_": "medseg_ext.transforms.SaveSegmentationd",
                        "keys": "pred",
                        "patients": "@patients",
                        "output_dir": str(tmp_path / "out"),
                    },
                ],
            },
            "dataset": {
                "_target_": "medseg_ext.workflow.PatientStream",
                "data": "$@patients.items",
                "transform": "@preprocessing",
                "failures": "$@patients.failures",
                "progress": False,
            },
        }
    )
    config.parse()
    dataset = config.get_parsed_content("dataset")
    assert [item["patient"] for item in dataset] == ["p1", "p2"]
    assert config.get_parsed_content("patients").failures.patients == {"p3"}
    said = capsys.readouterr()
    assert "channels of 4-D NIfTI files: t1, t1ce, t2, flair" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert "p3_t2.nii: found not a NIfTI file" in line
    names = ["p1_seg.nii.gz", "p1_volumes.json", "p2_seg.nii.gz", "p2_volumes.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


@pytest.fixture
def found(folder: Path) -> dict[str, object]:
    """A loaded study with a restored prediction: one voxel of each kind."""
    data = LoadSequencesd()({"image": folder})
    pred = torch.zeros(3, 20, 18, 16)
    pred[1, 3, 4, 5] = pred[:2, 3, 4, 6] = pred[:, 3, 4, 7] = 1
    data["pred"] = pred * 0.9
    data = RestoreRegionsd("pred")(data)
    data["probabilities"] = data["pred"]
    return RegionsToLabelsd("pred", "brats2017")(data)


def test_everything_that_can_be_saved(folder: Path, found: dict[str, object], tmp_path: Path) -> None:
    study = study_from_path(folder, rules=BRATS_RULES)
    save = SaveSegmentationd(
        "pred", batch(study), tmp_path / "out", "brats2017", probabilities_key="probabilities", slicer=True
    )
    assert isinstance(save, SaveImaged)  # programs that save themselves leave those out
    assert save(found) == found
    names = ["p1_probabilities.nii.gz", "p1_seg.nii.gz", "p1_seg.seg.nrrd", "p1_volumes.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    like = nibabel.load(folder / "p1_t1ce.nii")
    labels = nibabel.load(tmp_path / "out" / "p1_seg.nii.gz")
    np.testing.assert_array_equal(labels.affine, like.affine)
    assert np.bincount(np.asarray(labels.dataobj).ravel()).tolist() == [20 * 18 * 16 - 3, 1, 1, 0, 1]
    probabilities = nibabel.load(tmp_path / "out" / "p1_probabilities.nii.gz")
    assert (probabilities.shape, probabilities.get_data_dtype()) == ((*like.shape, 3), np.uint8)
    np.testing.assert_allclose(
        np.moveaxis(probabilities.get_fdata(), -1, 0), found["probabilities"].numpy(), atol=0.5 / 255 + 1e-6
    )
    volumes = json.loads((tmp_path / "out" / "p1_volumes.json").read_text())
    assert volumes["patient"] == "p1"
    assert volumes["regions_ml"] == {"tc": 0.002, "wt": 0.003, "et": 0.001}
    assert volumes["labels_ml"] == {"1": 0.001, "2": 0.001, "4": 0.001}
    assert volumes["labels"]["4"] == "enhancing tumour"


def test_what_cannot_be_written_is_recorded(
    folder: Path, found: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_from_path(folder, rules=BRATS_RULES)
    (tmp_path / "out").write_text("a file")
    failures = Failures()
    SaveSegmentationd("pred", batch(study, failures=failures), tmp_path / "out", "brats2017")(found)
    assert failures.patients == {"p1"}
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}")
    with pytest.raises(InputError):
        SaveSegmentationd("pred", batch(study), tmp_path / "out", "brats2017")(found)


def test_nothing_is_written_among_the_input(folder: Path, found: dict[str, object]) -> None:
    before = sorted(folder.iterdir())
    study = study_from_path(folder, rules=BRATS_RULES)
    with pytest.raises(InputError, match="own folder as the place of its masks"):
        SaveSegmentationd("pred", batch(study), folder, "brats2017")(found)
    assert sorted(folder.iterdir()) == before


def test_a_label_map_of_another_shape(folder: Path, found: dict[str, object], tmp_path: Path) -> None:
    study = study_from_path(folder, rules=BRATS_RULES)
    found["pred"] = found["pred"][:, 1:]
    with pytest.raises(ValueError, match="label map of shape"):
        SaveSegmentationd("pred", batch(study), tmp_path / "out")(found)
