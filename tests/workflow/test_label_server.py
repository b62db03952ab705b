"""Output folders and weights of trainings that a MONAI Label server starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_ext.layouts import LGG_RULES
from medseg_ext.workflow import BatchPatients, TrainingPatients, patient_names, served_weights, training_dir

FOLDER = "import medseg_ext.workflow as w; print(w.training_dir('b')); print(w.training_dir('b'))"


def test_by_hand_all_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONAI_LABEL_APP_DIR", raising=False)
    assert Path(training_dir("b")) == Path("b/results/training")
    assert served_weights("b") is None


def test_under_a_server_each_training_has_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_LABEL_APP_DIR", "app")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    own = training_dir("b")
    assert re.fullmatch(r"training_\d{8}_\d{6}", Path(own).name)
    assert Path(served_weights("b") or "") == Path("b/models/model_trained.pt")
    # a config evaluates the expression more than once, and torchrun's processes each for themselves
    environment = dict(os.environ) | {"TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FOLDER], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [own, own]


def test_names_of_patients_whoever_chose_them() -> None:
    own = [{"image": object(), "patient": "p1"}]
    given = [{"image": "/studies/p2.nii.gz", "label": "/studies/labels/final/p2.nii.gz"}]
    assert patient_names(own, given) == {"train": ["p1"], "val": ["p2"]}


def test_no_folder_is_looked_at_before_a_patient_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no such folder"
    for patients in (
        BatchPatients(missing, tmp_path / "out", rules=LGG_RULES),
        TrainingPatients(missing, "", output_dir=tmp_path / "out"),
    ):
        assert capsys.readouterr().err == ""
        with pytest.raises(SystemExit):
            _ = patients.items if isinstance(patients, BatchPatients) else patients.train
        assert capsys.readouterr().err.startswith(f"error: {missing}: found no such folder")
    assert not list(tmp_path.iterdir())
