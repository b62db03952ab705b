"""The report of a sweep says what its numbers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_ext.errors import InputError
from medseg_ext.experiments.report import compare_by_group, findings, patient_means, read_results, write_report

PATIENTS = [f"p{i}" for i in range(10)]
SWEEP = {
    "bundle": "lgg_2d_segmentation",
    "baseline": "shipped",
    "budget": {"max_epochs": 2, "samples_per_epoch": 1500, "batch_size": 16},
    "weights": "model_best.pt",
    "split": "val",
}


def write(output: Path, name: str, group: str, shift: float, seed: int = 0, own: float | None = None) -> None:
    """A run whose patients all differ from .5 + i / 100 by ``shift``."""
    folder = output / "runs" / name / f"seed_{seed}"
    folder.mkdir(parents=True)
    scores = {p: 0.5 + i / 100 + shift for i, p in enumerate(PATIENTS)}
    result = {
        "name": name,
        "group": group,
        "seed": seed,
        "patients": {p: {"dice": s, "dice_reference_protocol": s + 0.1} for p, s in scores.items()},
        "loss": {"1": 0.9, "2": 0.5},
        "val_mean_dice": {"1": 0.2, "2": 0.4},
        "seconds_an_epoch": 12.0,
        "own_validation_dsc": own,
        "parameters": 1234567,
    }
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "sweep.json").write_text(json.dumps(SWEEP))
    write(tmp_path, "shipped", "baseline", -0.1)
    write(tmp_path, "shipped", "baseline", 0.1, seed=1)
    write(tmp_path, "unet", "network", 0.02)
    write(tmp_path, "segresnet", "network", -0.03)
    write(tmp_path, "same", "loss", 0.0)
    write(tmp_path, "reference", "reference", -0.2, own=0.312)
    return tmp_path


def test_seeds_are_averaged_patient_by_patient(output: Path) -> None:
    rows = read_results(output)
    assert list(rows) == ["shipped", "segresnet", "unet", "same", "reference"]
    assert patient_means(rows["shipped"]) == pytest.approx({p: 0.5 + i / 100 for i, p in enumerate(PATIENTS)})


def test_findings(output: Path) -> None:
    rows = read_results(output)
    compared = compare_by_group(rows, "shipped")
    # ten differences of one sign: 2 / 2**10, twice that for the two networks, none more for the reference alone
    assert compared["unet"].p == pytest.approx(2 / 1024, rel=0.5)
    assert compared["unet"].p_corrected == pytest.approx(2 * compared["unet"].p)
    assert compared["reference"].p_corrected == compared["reference"].p
    said = findings(rows, compared)
    assert [line.split(":")[0] for line in said["better"]] == ["unet (network)"]
    assert [line.split(":")[0] for line in said["worse"]] == ["segresnet (network)", "reference (reference)"]
    assert [line.split(":")[0] for line in said["no difference shown"]] == ["same (loss)"]


def test_report(output: Path) -> None:
    markdown, page = write_report(output)
    text, html = markdown.read_text(), page.read_text()
    for part in (
        "3,000 training samples, 2 epochs of 1,500 in batches of 16; learning rates",
        # the seeds shift all patients by -.1 and .1
        "has 0.445, 0.645 with 2 seeds: differences of up to 0.200 are within what chance makes",
        "10 patients of val; weights: chosen on the patients that are scored here",
        "corrected for the rows of its group by Holm 1979",
        "unet (network): +0.020 (+0.020 to +0.020)",
        "by its own validation DSC it reaches 0.312",
        "1,234,567",
    ):
        assert part in text, part
        assert part in html, part
    assert "| unet | network | 1 | 0.565 (" in text
    assert "figures/curves.png" in text and "data:image/png;base64," in html
    assert (output / "figures" / "differences.png").is_file()


def test_few_patients_cannot_show_much(output: Path) -> None:
    for path in (output / "runs").rglob("result.json"):
        result = json.loads(path.read_text())
        result["patients"] = {p: result["patients"][p] for p in PATIENTS[:5]}
        path.write_text(json.dumps(result))
    text = write_report(output)[0].read_text()
    # 2 / 2**5 = .0625, twice that for two networks
    assert "With 5 patients the corrected p of one of 2 rows (network) cannot fall below 0.125" in text
    assert "Perhaps better" in text and "Better than the baseline" not in text


def test_refusals(output: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match="no such file"):
        write_report(tmp_path_factory.mktemp("empty"))
    for path in (output / "runs" / "shipped").rglob("result.json"):
        path.unlink()
    with pytest.raises(InputError, match="no finished run of the baseline, shipped"):
        write_report(output)
    for path in (output / "runs").rglob("result.json"):
        path.unlink()
    with pytest.raises(InputError, match="no finished run"):
        write_report(output)
