"""The two stages by which the shipped weights came about, in small: slabs first, then volumes."""

from __future__ import annotations

from pathlib import Path

import torch

from medseg_ext.training import read_pieces

from .conftest import ROOT, Runner, as_options

BUNDLE = ROOT / "bundles" / "brats_3d_segmentation"
CONFIGS = ["configs/train.json", "configs/pieces.yaml"]
SMALL = {"features": [4, 8, 16], "max_epochs": 1, "loader_workers": 0, "val_interval": 1}
VOLUMES = {
    "patch_size": [32, 32, 24],
    "patch_sizes": {"cube": [24, 24, 24]},
    "patches_a_sample": 1,
    "slab_thickness": [8, 8],
    "samples_per_epoch": 4,
}
SLABS = {"patch_size": [32, 32, 2], "patch_sizes": {"cube": [16, 16, 2]}, "samples_per_epoch": 4, "batch_size": 2}


def train(run_in: Runner, configs: list[str], **options: object) -> str:
    files = "[" + ",".join(f"'{name}'" for name in configs) + "]"
    done = run_in(BUNDLE, *["monai.bundle", "run", "training", "--config_file", files], *as_options(SMALL | options))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_slabs_then_volumes(pieces: Path, tmp_path: Path, run_in: Runner) -> None:
    slabs, volumes = tmp_path / "slabs", tmp_path / "volumes"
    train(run_in, [*CONFIGS, "configs/slabs.yaml"], dataset_dir=pieces, output_dir=slabs, fold=1, **SLABS)
    flat = torch.load(slabs / "model_last.pt", weights_only=True)
    start = {"slab_weights": slabs / "model_last.pt", "dataset_dir": pieces, "fold": 1}
    said = train(run_in, CONFIGS, output_dir=volumes, **start, **VOLUMES)
    assert "val_mean_dice" in said
    deep = torch.load(volumes / "model_best.pt", weights_only=True)
    name = "backbone.input_block.norm1.running_mean"
    torch.testing.assert_close(deep[name], flat[name], msg="the statistics of the slabs stay")
    weight = "backbone.bottleneck.conv2.conv.weight"
    assert flat[weight].ndim == 4 and deep[weight].ndim == 5
    assert (deep[weight][..., 1] - flat[weight]).abs().max() < 0.1 * flat[weight].abs().max()


def test_all_folds_train_and_others_validate(pieces: Path, tmp_path: Path, run_in: Runner) -> None:
    others = tmp_path / "others"
    (head,) = [piece for piece in read_pieces(pieces, ["head"]) if piece.fold == 0]
    for part in ("json", "image.npy", "truth.npy"):
        text = (pieces / f"{head.name}.{part}").read_bytes()
        others.mkdir(exist_ok=True)
        (others / f"{head.name}.{part}").write_bytes(text.replace(b'"patient": "head_0"', b'"patient": "other"'))
    options = {"dataset_dir": pieces, "output_dir": tmp_path / "out", "fold": -1, "validation_dir": others}
    assert "val_mean_dice" in train(run_in, CONFIGS, **options, **VOLUMES)


def test_a_patient_on_both_sides_is_refused(pieces: Path, tmp_path: Path, run_in: Runner) -> None:
    options = SMALL | VOLUMES | {"dataset_dir": pieces, "fold": -1, "validation_dir": pieces}
    command = ["monai.bundle", "run", "training", "--config_file", str(CONFIGS).replace(" ", "")]
    done = run_in(BUNDLE, *command, *as_options(options | {"output_dir": tmp_path / "out"}))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "patients that train and validate (cube_0, cube_1, " in line
