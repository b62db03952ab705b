"""The bundle on folders with pipes, circles of links, absurd headers and names that are no text."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_patients import tiny_head, write_kaggle, write_stack

from tests.bundles.conftest import Runner, Small, as_options


def with_mask(folder: Path, name: str, **header: object) -> Path:
    """A NIfTI stack, uncompressed, with its mask beside it, and values changed in its header."""
    image, mask = tiny_head(3)
    path = write_stack(folder / f"{name}.nii", image)
    nibabel.save(nibabel.Nifti1Image(mask, nibabel.load(path).affine), folder / f"{name}_mask.nii.gz")
    content = path.read_bytes()
    values = np.frombuffer(bytearray(content[:348]), nibabel.Nifti1Header.template_dtype).copy()
    for key, value in header.items():
        values[key] = value
    path.write_bytes(values.tobytes() + content[348:])
    return path


def test_the_rest_of_the_batch_is_done(
    bundle: Path, small: Small, run_in: Runner, small_weights: Path, tmp_path: Path
) -> None:
    if small.layout != "kaggle":
        pytest.skip("a bundle that reads no pictures")
    odd = os.fsdecode(b"p\xff\x1b")
    data, out = tmp_path / "data", tmp_path / os.fsdecode(b"out\xfe")
    try:
        write_kaggle(data, odd)
    except OSError:
        pytest.skip("the file system takes text only")
    root = data / "kaggle_3m"
    write_kaggle(data, "piped")
    (root / "piped" / "piped_2.tif").unlink()
    os.mkfifo(root / "piped" / "piped_2.tif")
    (root / "self").symlink_to("self")
    (root / "up").symlink_to(tmp_path)
    write_kaggle(tmp_path, "outside")
    (root / "masks").mkdir()
    (root / odd / f"{odd}_1.tif").rename(root / "masks" / "m_1.tif")
    (root / odd / f"{odd}_1_mask.tif").unlink()
    with_mask(root / "volumes", "units", xyzt_units=7)
    huge = with_mask(root / "volumes", "huge", dim=[4, 30000, 30000, 30000, 3, 1, 1, 1])
    options = {"dataset_dir": data, "output_dir": out, "split": "all", "ckpt_path": small_weights}
    run = run_in(
        bundle,
        *("monai.bundle", "run", "evaluating", "--config_file", "['configs/inference.json','configs/evaluate.yaml']"),
        *as_options(options | small.network),
    )
    assert "Traceback" not in run.stdout + run.stderr
    assert run.returncode == 1
    lines = sorted(line for line in run.stderr.splitlines() if line.startswith("error: "))
    assert [line.split(", allowed ")[0] for line in lines] == [
        f"error: {root}/piped/piped_2.tif: found a pipe, socket or device",
        f"error: {huge}: found a volume of 30000x30000x30000x3",
    ]
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["patient"] for row in csv.DictReader(file)] == ["p\\udcff\x1b", "units"]
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["patients"] == 2
    assert sorted(path.name for path in (out / "masks").iterdir()) == [odd, "units_mask.nii"]
    assert len(list((out / "masks" / odd).iterdir())) == 3
    assert "p\\udcff" in (out / "summary.html").read_text(encoding="utf-8")
    assert "out\\udcfe/summary.html" in run.stdout
