"""Every bundle evaluates and segments in two processes as in one, and does not do twice what is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Patients, Runner, Small, as_options

TWO = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob(pattern))}


@pytest.mark.slow
def test_evaluation_is_shared_out(
    bundle: Path, small: Small, patients: Patients, small_weights: Path, run_in: Runner, tmp_path: Path
) -> None:
    def evaluate(name: str, launcher: list[str], *more: str) -> str:
        configs = ["configs/inference.json", "configs/evaluate.yaml", *(["configs/multi_gpu.yaml"] if launcher else [])]
        ids = {
            "dataset_dir": patients.folder,
            "split": "all",
            "output_dir": tmp_path / name,
            "ckpt_path": small_weights,
        }
        done = run_in(
            bundle,
            *launcher,
            *["monai.bundle", "run", "evaluating", "--config_file", str(configs)],
            *as_options({**ids, **small.network}),
            *more,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    evaluate("one", [])
    evaluate("two", TWO, "--skip_done", "True")
    names = sorted(path.name for path in patients.folder.iterdir() if path.is_dir()) or None
    for pattern in ("metrics.csv", small.masks, "*.png"):
        found = {name: data for name, data in files(tmp_path / "two", pattern).items() if not name.startswith("cases/")}
        assert found == files(tmp_path / "one", pattern), pattern
    rows = (tmp_path / "two" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 5 and names is not None
    notes = files(tmp_path / "two" / "cases", "*.json")
    assert len(notes) == 1 + 2 * 4
    # one is taken back; the rest is not done again
    (lost,) = list((tmp_path / "two" / "cases" / "report").glob("*.json"))[:1]
    lost.unlink()
    table = (tmp_path / "two" / "metrics.csv").read_bytes()
    printed = evaluate("two", [], "--skip_done", "True")
    assert "done before: 3 of 4 patients" in printed
    assert (tmp_path / "two" / "metrics.csv").read_bytes() == table
    mean = json.loads((tmp_path / "one" / "metrics.json").read_text())
    again = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert {name: value for name, value in again.items() if name != "provenance"} == {
        name: value for name, value in mean.items() if name != "provenance"
    }


@pytest.mark.slow
def test_masks_are_shared_out(
    bundle: Path, small: Small, patients: Patients, small_weights: Path, run_in: Runner, tmp_path: Path
) -> None:
    ids = {"dataset_dir": patients.folder, "output_dir": tmp_path, "ckpt_path": small_weights, "skip_done": True}
    command = ["monai.bundle", "run", "inferring", "--config_file"]
    configs = "['configs/inference.json','configs/multi_gpu.yaml']"
    done = run_in(bundle, *TWO, *command, configs, *as_options({**ids, **small.network}))
    assert done.returncode == 0, done.stderr
    masks = files(tmp_path, small.masks)
    assert len({name.split("/")[0] for name in masks}) == 4
    removed = min(masks)
    (tmp_path / removed).unlink()
    done = run_in(bundle, *command, "configs/inference.json", *as_options({**ids, **small.network}))
    assert done.returncode == 0, done.stderr
    assert "done before: 3 of 4 patients" in done.stdout
    assert files(tmp_path, small.masks) == masks
    threshold = {"smallest_lesion": 3.5} if "brats" in bundle.name else {"threshold": 0.25}
    done = run_in(bundle, *command, "configs/inference.json", *as_options({**ids, **small.network, **threshold}))
    assert done.returncode == 1
    assert "cases/settings.json: found results of other settings (" in done.stderr
