import json
from pathlib import Path

import numpy as np
import pytest

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically
from medseg_ext.reports import write_csv, write_json


def test_csv(tmp_path):
    rows = [{"patient": "a,b", "dice": 0.5, "n": 3}, {"patient": "c", "dice": float("nan"), "ml": np.float32(1.25)}]
    path = write_csv(rows, tmp_path / "deep" / "metrics.csv")
    assert path.read_text() == 'patient,dice,n,ml\n"a,b",0.500000,3,\nc,,,1.250000\n'


def test_json_is_strict(tmp_path):
    content = {"a": {"ci95": [float("nan"), 1 / 3]}, "n": np.int64(2), "path": Path("x"), "none": None, "yes": True}
    text = write_json(content, tmp_path / "m.json").read_text()
    assert json.loads(text) == {"a": {"ci95": [None, 0.333333]}, "n": 2, "path": "x", "none": None, "yes": True}
    assert "NaN" not in text


def test_rewriting_leaves_nothing_beside(tmp_path):
    path = tmp_path / "m.json"
    write_json({"old": 1}, path)
    write_json({"new": 2}, path)
    assert json.loads(path.read_text()) == {"new": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_the_old_file_and_names_the_new(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    path.write_text("old")

    def half(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(InputError, match=r"metrics\.csv: found No space left on device, allowed a writable folder"):
        write_atomically(path, "new content")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="allowed a writable folder with room left"):
        write_atomically(tmp_path / "file" / "metrics.csv", "x")
