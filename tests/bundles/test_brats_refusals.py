"""The 3-D bundle on bad input: a line for each file at fault, the other patients done, nothing of the bad ones."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
from dicom_files import write_series
from random_weights import write_random_weights

from medseg_ext.layouts import BRATS_CHANNELS
from medseg_ext.phantoms import make_phantom
from medseg_ext.phantoms.writers import write_brats2020

from .conftest import ROOT, Runner, as_options

BUNDLE = ROOT / "bundles" / "brats_3d_segmentation"
FEATURES = [4, 8, 16]
CONFIGS = {
    "inferring": "configs/inference.json",
    "evaluating": "['configs/inference.json','configs/evaluate.yaml']",
    "training": "configs/train.json",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(BUNDLE, {"features": FEATURES}, tmp_path_factory.mktemp("weights") / "model.pt")


def change_voxels(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.array(image.dataobj)), image.affine), path)


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    return voxels


def only_one_and_two(voxels: np.ndarray) -> np.ndarray:
    return np.where(voxels > 2, 1, voxels).astype(np.uint8)


def file(folder: Path, part: str) -> Path:
    return folder / f"{folder.name}_{part}.nii.gz"


def move_away(path: Path) -> None:
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 500
    nibabel.save(nibabel.Nifti1Image(np.array(image.dataobj), affine), path)


def stack_of_three(folder: Path) -> None:
    images = [nibabel.load(file(folder, name)) for name in BRATS_CHANNELS[:3]]
    stack = np.stack([np.array(image.dataobj) for image in images], -1)
    for path in folder.iterdir():
        path.unlink()
    nibabel.save(nibabel.Nifti1Image(stack, images[0].affine), folder / f"{folder.name}.nii.gz")


def series_with_a_gap(folder: Path) -> None:
    image = nibabel.load(file(folder, "flair"))
    voxels = np.array(image.dataobj).astype(np.uint16)
    for path in folder.iterdir():
        path.unlink()
    write_series(folder, voxels, image.affine, description="FLAIR", series="1.2.3.4")[7].unlink()


#: How a patient is spoilt, by name: what is done to its folder, the file at fault, what is said of it.
IMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut": (lambda p: os.truncate(file(p, "t1ce"), 900), "t1ce", "truncated or damaged"),
    "text": (lambda p: file(p, "flair").write_text("hello"), "flair", "not a NIfTI file"),
    "nan": (lambda p: change_voxels(file(p, "t2"), with_nan), "t2", "NaN or infinite values in 1 voxels"),
    "doubled": (
        lambda p: nibabel.save(nibabel.load(file(p, "flair")), p / f"{p.name}_flair.nii"),
        "flair",
        "a second",
    ),
    "away": (lambda p: move_away(file(p, "t2")), "t2", "a volume elsewhere in space"),
    "three": (stack_of_three, "", "3 channels"),
    "gap": (series_with_a_gap, "", "a gap of 2 mm"),
    "flat": (
        lambda p: [change_voxels(file(p, name), np.zeros_like) for name in BRATS_CHANNELS],
        "",
        "",
    ),
}
MASKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "maskless": (lambda p: file(p, "seg").unlink(), "", "no "),
    "seven": (lambda p: change_voxels(file(p, "seg"), lambda v: v + np.uint8(7)), "seg", "7"),
    "between": (lambda p: change_voxels(file(p, "seg"), lambda v: v * np.float32(0.75)), "seg", "values such as 0.75"),
}


def write_patients(root: Path, cases: dict[str, tuple[Callable[[Path], object], str, str]], good: int) -> None:
    for number, name in enumerate([*(f"good{i}" for i in range(good)), *cases]):
        phantom = make_phantom(number, (40, 40, 32), (1, 1, 1), BRATS_CHANNELS, kind="high", skull_stripped=True)
        folder = write_brats2020(phantom, root, name)
        if name in cases:
            cases[name][0](folder)


def check(stderr: str, root: Path, cases: dict[str, tuple[Callable[[Path], object], str, str]]) -> None:
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in stderr
    assert len(lines) == len(cases), stderr
    for name, (_, part, message) in cases.items():
        start = f"error: {file(root / name, part) if part else root / name}"
        (line,) = [line for line in lines if line.startswith(start)]
        assert f"found {message}" in line or message in line
        assert ", allowed " in line


@pytest.mark.parametrize("job", ["inferring", "evaluating"])
def test_bad_patients_cost_only_themselves(job: str, weights: Path, tmp_path: Path, run_in: Runner) -> None:
    # a stack and a series have no label map to go with, which an evaluation would name first
    seen = {name: case for name, case in IMAGES.items() if name not in {"three", "gap"}}
    cases = IMAGES if job == "inferring" else seen | MASKS
    write_patients(tmp_path / "data", cases, good=2)
    options = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "out", "ckpt_path": weights}
    command = ["monai.bundle", "run", job, "--config_file", CONFIGS[job]]
    done = run_in(BUNDLE, *command, *as_options(options | {"features": FEATURES, "smallest_lesion": 0}))
    assert done.returncode == 1
    check(done.stderr, tmp_path / "data", cases)
    masks = tmp_path / "out" / ("masks" if job == "evaluating" else "")
    assert sorted(path.name for path in masks.glob("*_seg.nii.gz")) == ["good0_seg.nii.gz", "good1_seg.nii.gz"]
    if job == "evaluating":
        with (tmp_path / "out" / "metrics.csv").open() as table:
            assert [row["patient"] for row in csv.DictReader(table)] == ["good0", "good1"]


def test_an_output_that_cannot_be_written(weights: Path, tmp_path: Path, run_in: Runner) -> None:
    write_patients(tmp_path / "data", {}, good=1)
    (tmp_path / "taken").touch()
    options = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "taken" / "out", "ckpt_path": weights}
    command = ["monai.bundle", "run", "inferring", "--config_file", CONFIGS["inferring"]]
    done = run_in(BUNDLE, *command, *as_options(options | {"features": FEATURES}))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {tmp_path / 'taken'}") and ", allowed " in line


def test_a_bad_patient_ends_a_training(tmp_path: Path, run_in: Runner) -> None:
    cases = {name: (IMAGES | MASKS)[name] for name in ("cut", "seven")}
    write_patients(tmp_path / "data", cases, good=2)
    split = {"train": ["good0", "cut"], "val": ["good1", "seven"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    options = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "out", "split_file": tmp_path / "split.json"}
    small = {"features": FEATURES, "patch_size": [24, 24, 24], "max_epochs": 1, "loader_workers": 0}
    done = run_in(
        BUNDLE, *["monai.bundle", "run", "training", "--config_file", CONFIGS["training"]], *as_options(options | small)
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(str(file(tmp_path / "data" / "cut", "t1ce")) in line for line in lines)
    assert not list((tmp_path / "out").glob("*.pt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": [0.5, 0.5]}, "error: thresholds: found [0.5, 0.5], allowed three probabilities"),
        ({"label_convention": "brats"}, "error: label_convention: found 'brats', allowed 'brats2017', "),
        ({"smallest_leson": 1}, "error: smallest_leson: found an option that nothing uses"),
        ({"channel_order": ["t1", "t1ce", "flair", "t2"]}, "error: channel_order: found t1, t1ce, flair, t2"),
        ({"mirror_axes": [3]}, "error: mirror_axes: found [3], allowed a list of 0, 1 and 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistaken_options(
    options: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "channel_order" in options and not (BUNDLE / "models" / "model.pt").is_file():
        pytest.skip("the bundle has no models/model.pt yet")
    write_patients(tmp_path / "data", {}, good=1)
    monkeypatch.chdir(BUNDLE)
    given = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out"), **options}
    with pytest.raises(SystemExit) as end:
        monai.bundle.run(run_id="inferring", config_file=CONFIGS["inferring"], logging_file=False, **given)
    assert end.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(message)


def test_an_ambiguous_label_map_is_to_be_declared(weights: Path, tmp_path: Path, run_in: Runner) -> None:
    """1 and 2 alone, in files of no known set: which is core and which edema?"""
    write_patients(tmp_path / "data", {}, good=1)
    folder = tmp_path / "data" / "good0"
    change_voxels(file(folder, "seg"), only_one_and_two)
    for name in BRATS_CHANNELS:
        shutil.move(file(folder, name), folder / f"scan-{name}.nii.gz")
    shutil.move(file(folder, "seg"), folder / "scan-mask.nii.gz")
    given = {"dataset_dir": tmp_path / "data", "ckpt_path": weights, "features": FEATURES}
    command = ["monai.bundle", "run", "evaluating", "--config_file", CONFIGS["evaluating"]]
    done = run_in(BUNDLE, *command, *as_options(given | {"output_dir": tmp_path / "out"}))
    assert done.returncode == 1
    assert "a declared label convention" in done.stderr
    declared = given | {"output_dir": tmp_path / "declared", "truth_convention": "decathlon"}
    assert run_in(BUNDLE, *command, *as_options(declared)).returncode == 0
