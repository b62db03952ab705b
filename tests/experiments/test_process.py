"""Runs of a bundle's verb: once, with their errors, and not in a folder of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_ext.errors import InputError
from medseg_ext.experiments.process import claim, fingerprint, last_error, run_verb
from medseg_ext.training.state import STATE_FILE

CONFIG = {
    "imports": ["$from pathlib import Path"],
    "word": "none",
    "output_dir": ".",
    "training": ["$(Path(@output_dir) / 'said.txt').open('a').write(@word)"],
    "failing": ["$print('first\\nerror: FILE: found a, allowed b\\nand more', flush=True)", "$1 / 0"],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bundle" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return path


def test_runs_once(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    values = {"word": "hello", "output_dir": str(folder)}
    (folder / STATE_FILE).touch()
    assert run_verb("training", config.parent, [config], values, folder)
    assert not (folder / STATE_FILE).exists(), "nothing goes on with a run that has ended"
    assert not run_verb("training", config.parent, [config], values, folder)
    assert (folder / "said.txt").read_text() == "hello"
    with pytest.raises(InputError, match=r"training\.yaml: found a run of other configs or values"):
        run_verb("training", config.parent, [config], {**values, "word": "other"}, folder)
    with pytest.raises(InputError, match=r"failing\.log: found status 1 .FILE: found a, allowed b., allowed"):
        run_verb("failing", config.parent, [config], values, folder)


def test_fingerprint(config: Path, tmp_path: Path) -> None:
    first = fingerprint([config], {"word": "a", "sizes": (1, 2), "output_dir": "x"})
    assert first == fingerprint([config], {"sizes": [1, 2], "word": "a", "output_dir": "y"})
    assert first != fingerprint([config], {"word": "b", "sizes": (1, 2)})
    config.write_text(config.read_text() + " ")
    assert first != fingerprint([config], {"word": "a", "sizes": (1, 2)})


def test_last_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: one\nError: two\nTraceback\n\n")
    assert last_error(log) == "Error: two"
    log.write_text("killed\n")
    assert last_error(log) == "killed"
    log.write_text("")
    assert last_error(log) == "no output"


def test_claim(tmp_path: Path) -> None:
    path = tmp_path / "out" / "sweep.json"
    claim(path, {"budget": {"a": 1}, "split": ("x",)})
    claim(path, {"split": ["x"], "budget": {"a": 1}})
    with pytest.raises(InputError, match="a run with another budget, allowed another output folder"):
        claim(path, {"budget": {"a": 2}, "split": ["x"]})
