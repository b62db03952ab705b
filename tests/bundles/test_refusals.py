"""The bundle on bad input: a line for each file at fault, the rest done, nothing written for what failed, status 1."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from random_weights import write_random_weights
from tiny_patients import tiny_head, write_kaggle, write_stack

from medseg_ext.layouts import listing

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
FEATURES = [4, 8, 8]
CONFIGS = {
    "training": ["configs/train.json"],
    "inferring": ["configs/inference.json"],
    "evaluating": ["configs/inference.json", "configs/evaluate.yaml"],
}
SMALL = {"crop_size": [64, 64], "samples_per_epoch": 8, "batch_size": 4, "max_epochs": 1, "loader_workers": 0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle with the weights of a small network."""
    folder = tmp_path_factory.mktemp("refusals") / "bundle"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("*.pt", "results", "data"))
    (folder / "models").mkdir(exist_ok=True)
    write_random_weights(folder, {"features": FEATURES}, folder / "models" / "model.pt")
    return folder


def begin(bundle: Path, job: str, **options: object) -> subprocess.Popen:
    """The command as a person types it."""
    options = {"features": FEATURES} | (SMALL if job == "training" else {}) | options
    configs = str(CONFIGS[job]).replace(" ", "") if len(CONFIGS[job]) > 1 else CONFIGS[job][0]
    arguments = [text for key, value in options.items() for text in (f"--{key}", str(value).replace(" ", ""))]
    return subprocess.Popen(
        [sys.executable, "-m", "monai.bundle", "run", job, "--config_file", configs, *arguments],
        cwd=bundle,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors_in(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if line.startswith("error: "))


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def repaint(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)


def blacken(folder: Path) -> None:
    for i in range(1, 5):
        repaint(folder / f"{folder.name}_{i}.tif", np.zeros((64, 64, 3), np.uint8))


GREY = np.full((64, 64), 9, np.uint8)
#: How a patient is spoilt, by name: what is done to its folder, the file at fault, what is said of it.
IMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated": (lambda p: os.truncate(p / "truncated_2.tif", 600), "truncated_2.tif", "truncated"),
    "text": (lambda p: (p / "text_3.tif").write_text("hello"), "text_3.tif", "not a PNG or TIFF"),
    "sizes": (lambda p: repaint(p / "sizes_1.tif", np.zeros((64, 60, 3), np.uint8)), "sizes_1.tif", "64x60"),
    "grey": (lambda p: repaint(p / "grey_2.tif", GREY), "grey_2.tif", "1 channel, allowed 3"),
    "two": (lambda p: Image.new("LA", (64, 64)).save(p / "two_2.tif"), "two_2.tif", "2 channels, allowed 3"),
    "four": (lambda p: Image.new("RGBA", (64, 64)).save(p / "four_2.tif"), "four_2.tif", "4 channels, allowed 3"),
    "gap": (
        lambda p: [(p / name).unlink() for name in ("gap_2.tif", "gap_2_mask.tif")],
        "",
        "missing slice numbers 2 of 1 to 4",
    ),
    "black": (blacken, "", "all-black"),
    "hollow": (lambda p: [path.unlink() for path in p.iterdir()], "", "an empty folder"),
}
MASKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "maskless": (lambda p: (p / "maskless_2_mask.tif").unlink(), "maskless_2.tif", "no mask for the slice"),
    "sliceless": (lambda p: (p / "sliceless_4.tif").unlink(), "sliceless_4_mask.tif", "a mask without its slice"),
    "masksize": (
        lambda p: repaint(p / "masksize_3_mask.tif", np.zeros((60, 64), np.uint8)),
        "masksize_3_mask.tif",
        "a mask of 60x64",
    ),
    "shades": (lambda p: repaint(p / "shades_1_mask.tif", GREY), "shades_1_mask.tif", "grey values in the mask (9)"),
}


def spoil(root: Path, cases: dict[str, tuple[Callable[[Path], object], str, str]]) -> dict[Path, str]:
    """Write and spoil a patient for each case; what is said by the file at fault."""
    said = {}
    for name, (change, file, message) in cases.items():
        folder = write_kaggle(root, name)
        change(folder)
        said[folder / file if file else folder] = message
    return said


def check(process: subprocess.Popen, said: dict[Path, str]) -> str:
    """One line for each file at fault and no other, status 1, no traceback; returns stdout."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == 1, err
    assert "Traceback" not in out + err
    lines = errors_in(err)
    assert len(lines) == len(said), err
    for path, message in said.items():
        (line,) = [line for line in lines if line.startswith(f"error: {path}: found ")]
        assert message in line
        assert ", allowed " in line
    return out


def test_a_folder_of_broken_patients(bundle: Path, tmp_path: Path) -> None:
    """The three commands, on folders in which good patients stand beside broken ones."""
    evaluated, inferred, trained = (tmp_path / name for name in ("evaluated", "inferred", "trained"))
    (tmp_path / "broken.json").write_text("{no JSON")
    for seed in (1, 2):
        write_kaggle(evaluated, f"good{seed}", seed)
    said_evaluating = spoil(evaluated, IMAGES | MASKS)

    image, _ = tiny_head(3)
    write_kaggle(inferred, "asfiles", 3)
    said_inferring = spoil(inferred / "kaggle_3m" / "more", IMAGES)
    for name in MASKS:  # masks are left alone, whatever they are
        folder = write_kaggle(inferred, name)
        if name != "sliceless":
            MASKS[name][0](folder)
    (inferred / "kaggle_3m" / "asfiles" / "asfiles_2_mask.tif").write_text("damaged")
    nifti = inferred / "kaggle_3m" / "volumes"
    write_stack(nifti / "asnifti.nii.gz", image)
    spoilt = image.astype(np.float32)
    spoilt[1, 5, 5, 1] = np.nan
    said_inferring[write_stack(nifti / "nan.nii.gz", spoilt)] = "NaN or infinite values in 1 voxels"
    said_inferring[write_stack(nifti / "pair.nii.gz", image[:2])] = "2 channels"
    cut = write_stack(nifti / "cut.nii.gz", image)
    os.truncate(cut, cut.stat().st_size // 2)
    said_inferring[cut] = "truncated"
    before = fingerprint(inferred)

    for seed in (1, 2):
        write_kaggle(trained, f"good{seed}", seed)
    said_training = spoil(trained, {name: IMAGES[name] for name in ("truncated", "four")})
    spoil(trained, {"grey": IMAGES["grey"]})  # of the split that training leaves alone
    split = {"train": ["good1", "truncated", "four"], "val": ["good2"], "test": ["grey", "absent"]}
    (tmp_path / "split.json").write_text(json.dumps(split))

    out = tmp_path / "out"
    runs = [
        begin(
            bundle,
            "evaluating",
            dataset_dir=evaluated / "kaggle_3m",
            output_dir=out / "evaluated",
            split="all",
            split_file=tmp_path / "broken.json",
        ),
        begin(bundle, "inferring", dataset_dir=inferred, output_dir=out / "inferred"),
        begin(bundle, "training", dataset_dir=trained, output_dir=out / "trained", split_file=tmp_path / "split.json"),
    ]
    try:
        check(runs[0], said_evaluating)
        assert sorted(path.name for path in (out / "evaluated" / "masks").iterdir()) == ["good1", "good2"]
        with (out / "evaluated" / "metrics.csv").open() as file:
            assert [row["patient"] for row in csv.DictReader(file)] == ["good1", "good2"]
        assert json.loads((out / "evaluated" / "metrics.json").read_text())["patients"] == 2

        assert "channels of 4-D NIfTI files: t1, flair, t1ce" in check(runs[1], said_inferring)
        masks = {name: f"{name}/{name}_{{}}_mask.tif" for name in ("asfiles", "maskless", "masksize", "shades")}
        wanted = [pattern.format(i) for pattern in masks.values() for i in range(1, 5)]
        wanted += [f"sliceless/sliceless_{i}_mask.tif" for i in range(1, 5)] + ["asnifti_mask.nii.gz"]
        assert sorted(fingerprint(out / "inferred")) == sorted(wanted)
        assert fingerprint(inferred) == before

        check(runs[2], said_training)
        assert not list((out / "trained").glob("*.pt"))
    finally:
        for run in runs:
            run.kill()

    pictures = [np.asarray(Image.open(out / "inferred" / masks["asfiles"].format(i))) for i in range(1, 5)]
    volume = np.asarray(nibabel.load(out / "inferred" / "asnifti_mask.nii.gz").dataobj)
    assert 0 < volume.mean() < 1
    np.testing.assert_array_equal(np.stack(pictures, -1), volume * 255)


@pytest.fixture
def here(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three good patients in ``kaggle_3m`` and a split of them, with the bundle as the current folder."""
    for seed in range(3):
        write_kaggle(tmp_path, f"p{seed}", seed)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["p0"], "val": ["p1"], "test": ["p2", "p1x"]}))
    monkeypatch.chdir(bundle)
    # MONAI's handlers keep the stdout of the test that made them, which is closed by now
    monkeypatch.setattr(logging, "raiseExceptions", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run a job in this process: its error lines, once the status is the one expected."""

    def run(job: str, status: int = 1, **options: object) -> list[str]:
        given = {"dataset_dir": str(here / "kaggle_3m"), "output_dir": str(here / "out"), "features": FEATURES}
        if job != "inferring":
            given["split_file"] = str(here / "split.json")
        given |= SMALL if job == "training" else {}
        given |= {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        try:
            monai.bundle.run(run_id=job, config_file=CONFIGS[job], logging_file=False, **given)
        except SystemExit as end:
            found = end.code
        else:
            found = 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        assert found == status, captured.err
        return errors_in(captured.err)

    return run


Run = Callable[..., list[str]]


@pytest.mark.parametrize("job", ["inferring", "evaluating", "training"])
def test_folders_without_patients(run: Run, here: Path, job: str) -> None:
    (here / "empty").mkdir()
    (line,) = run(job, dataset_dir=here / "empty")
    assert line.startswith(f"error: {here / 'empty'}: found no studies in the folder, allowed ")
    (line,) = run(job, dataset_dir=here / "nowhere")
    assert line.startswith(f"error: {here / 'nowhere'}: found no such folder")
    assert not (here / "out").exists()


@pytest.mark.parametrize("job", ["inferring", "training"])
def test_an_unreadable_folder(run: Run, here: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(folder: Path):
        if Path(folder).name == "kaggle_3m":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(listing.os, "scandir", guarded)
    (line,) = run(job)
    assert line.startswith(f"error: {here / 'kaggle_3m'}: found an unreadable folder (Permission denied)")


def test_outputs_that_cannot_be(run: Run, here: Path) -> None:
    before = fingerprint(here / "kaggle_3m")
    (line,) = run("inferring", output_dir=here / "kaggle_3m")
    assert "found the input folder as the output folder, allowed a folder outside the input" in line
    (line,) = run("evaluating", output_dir=here / "kaggle_3m" / "p0" / "masks")
    assert "found a folder inside the input as the output folder" in line
    (line,) = run("training", output_dir=here / "kaggle_3m" / "results")
    assert "found a folder inside the input as the output folder" in line
    assert fingerprint(here / "kaggle_3m") == before
    (here / "file").write_text("in the way")
    for job in ("inferring", "training"):
        (line,) = run(job, output_dir=here / "file")
        assert line == f"error: {here / 'file'}: found File exists, allowed a writable folder"
    assert (here / "file").read_text() == "in the way"


def test_splits(run: Run, here: Path) -> None:
    (line,) = run("evaluating")  # p2 is done, p1x is not there
    assert line.startswith(
        f"error: {here / 'split.json'}: found patients of 'test' that are absent from the folder: p1x"
    )
    assert [path.name for path in (here / "out" / "masks").iterdir()] == ["p2"]
    assert json.loads((here / "out" / "metrics.json").read_text())["patients"] == 1
    assert run("evaluating", 0, split="val", output_dir=here / "val") == []  # others may be absent
    (line,) = run("evaluating", split="nine", output_dir=here / "nine")
    assert "found no split 'nine' (only train, val, test)" in line
    (here / "split.json").write_text(json.dumps({"train": ["p0", "p1"], "val": ["p1"], "test": ["p2"]}))
    for job in ("evaluating", "training"):
        (line,) = run(job, output_dir=here / "leaks")
        assert line == (
            f"error: {here / 'split.json'}: found a patient in two splits: p1 in train and p1 in val, "
            "allowed each patient in one split"
        )
    (here / "split.json").write_text(json.dumps({"train": ["p0", "p9"], "test": []}))
    (line,) = run("training", output_dir=here / "half")
    assert "found no split 'val', allowed train and val" in line
    (here / "split.json").write_text(json.dumps({"train": ["p0", "p9"], "val": ["p1", "p8"]}))
    lines = run("training", output_dir=here / "half")
    assert ["p9" in lines[0], "p8" in lines[1]] == [True, True]
    assert not list((here / "half").glob("*.pt"))
    (line,) = run("training", split_file=here / "nowhere.json")
    assert "nowhere.json: found no such file" in line


def test_weights_of_another_network(run: Run, here: Path, bundle: Path) -> None:
    wider = [4, 8, 16]
    (line,) = run("inferring", features=wider)
    assert line.startswith("error: models/model.pt: found weights of another network (")
    (line,) = run("evaluating", ckpt_path=here / "none.pt")
    assert line == f"error: {here / 'none.pt'}: found no file, allowed the weights of this network"
    os.truncate(shutil.copy(bundle / "models" / "model.pt", here / "cut.pt"), 5000)
    (line,) = run("evaluating", ckpt_path=here / "cut.pt")
    assert line.startswith(f"error: {here / 'cut.pt'}: found no readable weights")
    (line,) = run("inferring", ckpt_path="models:/none/1", tracking_uri="http://127.0.0.1:9")
    assert line.startswith(
        "error: models:/none/1: found nothing in http://127.0.0.1:9 (no server answers there), allowed "
    )
    (line,) = run("training", init_weights=here / "cut.pt")
    assert line.startswith(f"error: {here / 'cut.pt'}: found no readable weights")
    assert not (here / "out" / "masks").exists()


def test_a_damaged_state_of_a_training(run: Run, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "training_state.pt").write_text("half")
    (line,) = run("training")
    assert line.startswith(f"error: {here / 'out' / 'training_state.pt'}: found no state of this training")
    assert not list((here / "out").glob("model_*.pt"))


def test_a_disk_that_fills_up(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patient whose masks cannot be written has failed: it is in no table either."""
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if any(name in str(self) for name in names):
            raise OSError(28, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    names = ["p1_2_mask"]
    (line,) = run("evaluating", split="all")
    assert line.startswith(f"error: {here / 'out' / 'masks' / 'p1'}: found No space left on device, allowed ")
    assert sorted(path.name for path in (here / "out" / "masks").iterdir()) == ["p0", "p2"]
    with (here / "out" / "metrics.csv").open() as file:
        assert [row["patient"] for row in csv.DictReader(file)] == ["p0", "p2"]
    assert json.loads((here / "out" / "metrics.json").read_text())["patients"] == 2
    names = ["metrics.csv"]
    (line,) = run("evaluating", split="all", output_dir=here / "second")
    assert line.startswith(f"error: {here / 'second' / 'metrics.csv'}: found No space left on device, allowed ")
    assert not list((here / "second").glob("metrics*"))


def test_no_patient_left(run: Run, here: Path) -> None:
    for seed in range(3):
        (here / "kaggle_3m" / f"p{seed}" / f"p{seed}_1.tif").write_text("no picture")
    assert len(run("evaluating", split="all")) == 3
    assert len(run("inferring", output_dir=here / "inferred", overlays=True)) == 3
    assert not list((here / "out").glob("m*"))
    assert not list((here / "inferred").iterdir())


def test_the_bad_patient_of_a_validation(run: Run, here: Path) -> None:
    (here / "kaggle_3m" / "p1" / "p1_1.tif").write_text("no picture")
    (line,) = run("training")
    assert line.startswith(f"error: {here / 'kaggle_3m' / 'p1' / 'p1_1.tif'}: found not a PNG or TIFF")


def test_misspelt_and_impossible_options(run: Run, here: Path) -> None:
    (line,) = run("training", max_epoch=3)
    assert line == (
        "error: max_epoch: found an option that nothing uses, allowed one that the config has "
        "(did you mean max_epochs?)"
    )
    assert len(run("evaluating", treshold=0.3, outputdir="x")) == 2
    for job, options, said in (
        ("training", {"batch_size": 0}, "batch_size: found 0, allowed a whole number, 1 or more"),
        ("training", {"learning_rate": -1e-3}, "learning_rate: found -0.001, allowed above 0"),
        ("training", {"crop_size": [64, 60]}, "each a whole number, 1 or more, a multiple of 8"),
        ("training", {"folds": 1}, "folds: found 1, allowed a whole number, 0 for none or 2 or more"),
        ("training", {"fold": 9}, "fold: found 9, allowed 0 as long as folds is 0"),
        ("training", {"fold": 5, "folds": 5}, "fold: found 5, allowed 0 to 4, one of the folds"),
        ("inferring", {"threshold": "abc"}, "threshold: found 'abc', allowed 0 to 1"),
        ("inferring", {"smallest_component": -1}, "smallest_component: found -1, allowed 0 to 1"),
        ("inferring", {"overlays": "all"}, "overlays: found 'all', allowed True or False"),
        ("evaluating", {"overlays": "some"}, "overlays: found 'some', allowed True, False or 'all'"),
        ("evaluating", {"dataset_dir": 2024}, "dataset_dir: found 2024, allowed a path; one that reads as a number"),
        ("inferring", {"channel_order": ["t1", "t1ce"]}, "channel_order: found ['t1', 't1ce'], allowed a list of t1,"),
    ):
        (line,) = run(job, **options)
        assert said in line
    assert not (here / "out").exists()


def test_the_order_of_channels_belongs_to_the_weights(run: Run, here: Path, bundle: Path) -> None:
    other = ["flair", "t1", "t1ce"]
    weights = bundle / "models" / "model.pt"
    (line,) = run("inferring", channel_order=other)
    assert line.startswith(
        "error: channel_order: found flair, t1, t1ce, allowed t1, flair, t1ce, as models/model.pt was"
    )
    (line,) = run("training", channel_order=other, init_weights=weights)
    assert line.startswith("error: channel_order: found flair, t1, t1ce, allowed t1, flair, t1ce, as ")
    # of weights that lie elsewhere nobody knows, and a stack may hold its sequences in any order
    own = Path(shutil.copy(weights, here / "own.pt"))
    assert run("inferring", 0, channel_order=other, ckpt_path=own) == []
    assert run("inferring", 0, nifti_channel_order=["FLAIR", "T1", "T1Gd"]) == []


def test_inferring_knows_splits(run: Run, here: Path) -> None:
    assert run("inferring", 0, split="val", split_file=here / "split.json") == []
    assert [path.name for path in (here / "out").iterdir()] == ["p1"]


def test_splits_without_patients(run: Run, here: Path) -> None:
    (here / "split.json").write_text(json.dumps({"train": ["p0"], "val": [], "test": []}))
    for job, side in (("evaluating", "test"), ("training", "val")):
        (line,) = run(job)
        assert line == f"error: {here / 'split.json'}: found no patient in the split '{side}', allowed at least one"
    assert not list((here / "out").glob("*.pt"))


def test_a_training_shorter_than_its_interval_is_validated_all_the_same(run: Run, here: Path) -> None:
    assert run("training", 0, max_epochs=1, val_interval=5) == []
    assert (here / "out" / "model_best.pt").is_file()
