"""The quickstart, on phantoms and on folders with and without masks, and what its shell script decides."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import quickstart

from medseg_ext.phantoms.__main__ import main as write_phantoms

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
WEIGHTS = ROOT / "bundles" / "lgg_2d_segmentation" / "models" / "model.pt"

needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights in {WEIGHTS}")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def phantoms(folder: Path, count: int, *, masks: bool = True) -> Path:
    """Small studies: two slices are enough to see where files go."""
    arguments = [str(folder), "--count", str(count), "--shape", "64", "64", "4", "--quiet"]
    assert write_phantoms(arguments) == 0
    if not masks:
        for path in folder.rglob("*_mask.tif"):
            path.unlink()
    return folder


@needs_weights
def test_phantoms_are_scored(tmp_path: Path) -> None:
    output = tmp_path / "with space"
    command = [sys.executable, str(SCRIPTS / "quickstart.py"), "--output", str(output), "--studies", "1"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(output / "summary.html")
    assert "Research use only" in ran.stdout and "What to try next" in ran.stdout
    assert "quickstart.sh --bundle brats_3d_segmentation" in ran.stdout
    assert "monai.bundle run evaluating" in ran.stdout
    images = [path for path in (output / "phantoms").rglob("*.tif") if "_mask" not in path.name]
    assert len(list((output / "masks").rglob("*_mask.tif"))) == len(images) > 0
    assert list((output / "overlays").glob("*.png"))
    assert [path.name for path in (output / "reports").iterdir()] == ["PHANTOM_00_0001_20000101.html"]
    assert (output / "summary.html").is_file() and (output / "metrics.csv").is_file()


@needs_weights
def test_own_studies_without_masks_get_masks_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, output = phantoms(tmp_path / "data", 1, masks=False), tmp_path / "out"
    assert quickstart.main(["--data", str(data), "--output", str(output)]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(output / "summary.html")
    assert len(list(output.rglob("*_mask.tif"))) == 4
    assert not (output / "metrics.csv").exists()
    assert list(data.rglob("*_mask.tif")) == []


def test_what_is_run_for_which_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[str, tuple[str, ...]]] = []

    def record(bundle: str, verb: str, config: str, data: Path, output: Path, *options: str) -> int:
        runs.append((verb, options))
        return 3 if verb == "inferring" else 0

    monkeypatch.setattr(quickstart, "run_bundle", record)
    data, output = phantoms(tmp_path / "data", 2), tmp_path / "out"
    assert quickstart.segment(data, output) == (0, [output])
    assert runs == [("evaluating", ("--split", "all"))]

    runs.clear()
    for mask in (data / "kaggle_3m" / "PHANTOM_00_0001_20000101").glob("*_mask.tif"):
        mask.unlink()
    assert quickstart.segment(data, output) == (3, [output / "unscored", output])
    assert [(verb, options[-1]) for verb, options in runs] == [("inferring", "unscored"), ("evaluating", "scored")]
    expected = '{"scored": ["PHANTOM_00_0000_20000101"], "unscored": ["PHANTOM_00_0001_20000101"]}'
    assert "".join((output / "split.json").read_text().split()) == expected.replace(" ", "")


@pytest.mark.parametrize("case", ["missing", "empty", "output among the studies"])
def test_unusable_folder_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    if case != "missing":
        data.mkdir()
    if case == "output among the studies":
        output = data / "results"
    assert quickstart.main(["--data", str(data), "--output", str(output)]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and ", allowed " in lines[0]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("below", ["", "results"])
def test_a_file_in_the_way_of_the_results_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], own: bool, below: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / below
    data = ["--data", str(phantoms(tmp_path / "data", 1))] if own else []
    assert quickstart.main([*data, "--output", str(output)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {output}: found ") and line.endswith(
        ", allowed a folder that can be made and written"
    )
    assert (tmp_path / "file").read_text() == "in the way"


def test_commands_can_be_pasted() -> None:
    command = ["python", "--config_file", "['a','b']", "--dataset_dir", "/a b", "--split_file", "", "--x", "$HOME"]
    expected = """python --config_file "['a','b']" --dataset_dir "/a b" --split_file "" --x '$HOME'"""
    assert quickstart.quoted(command) == expected


needs_bash = pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="no bash")


def in_environment(folder: Path, command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command after the sourcing of a copy of environment.sh in ``folder``."""
    (folder / "scripts").mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPTS / "environment.sh", folder / "scripts")
    (folder / "pyproject.toml").write_text("[project]\n")
    environment = {**os.environ, "PATH": f"{path or ''}{os.pathsep * bool(path)}/usr/bin:/bin"}
    environment.pop("PYTHON", None)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"source scripts/environment.sh; {command}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@needs_bash
def test_a_python_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for name in ("python3.12", "python3.11", "python3.10", "python3", "python"):
        program(tmp_path / "bin" / name, '[ "$1" = --version ] && echo Python 3.9.1 && exit; exit 1')
    ran = in_environment(tmp_path, "make_environment", tmp_path / "bin")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: Python: found python3.12 (Python 3.9.1)")
    assert ", allowed 3.10, 3.11 or 3.12" in ran.stderr and len(ran.stderr.splitlines()) == 1


@needs_bash
def test_an_environment_is_made_once_and_again_when_it_is_broken_or_outdated(tmp_path: Path) -> None:
    """With a stand-in for Python that counts what pip is asked for."""
    home = tmp_path / "a b"
    fake = program(
        tmp_path / "bin" / "python3.12",
        f"""case "$*" in
  "-m pip install"*) echo "$*" >>"{tmp_path}/pip"; [ ! -e "{tmp_path}/offline" ] ;;
  "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "- "*) exec "{sys.executable}" "$@" ;;
  *) echo "Python 3.12.0" ;;
esac""",
    )

    def installs(command: str) -> list[str]:
        (tmp_path / "pip").write_text("")
        in_environment(home, command, fake.parent)
        return [line.split()[-1] for line in (tmp_path / "pip").read_text().splitlines()]

    assert installs("make_environment") == ["."]
    assert installs("make_environment") == []
    assert installs("make_environment test") == [".[test]"]
    assert installs("make_environment; make_environment test") == []
    # the Python it was made of is gone
    program(home / ".venv" / "bin" / "python", "exit 1")
    assert installs("make_environment") == ["."]
    # pip fails, or is interrupted: the next run starts afresh
    shutil.rmtree(home / ".venv")
    (tmp_path / "offline").touch()
    failed = in_environment(home, "make_environment", fake.parent)
    assert failed.returncode == 1 and failed.stderr.splitlines()[-1].startswith("error: pip: found")
    (tmp_path / "offline").unlink()
    (home / ".venv" / "left over").touch()
    assert installs("make_environment") == ["."]
    assert not (home / ".venv" / "left over").exists()
    # other dependencies
    (home / ".venv" / ".medseg-installed-core").write_text("of an older pyproject.toml")
    assert installs("make_environment") == ["."]
