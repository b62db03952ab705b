"""What ``scripts/monailabel.sh`` refuses before it installs anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "monailabel.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def start(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, "--venv", "venv", "--app", "app", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--studies: found none, allowed a folder"),
        (["--studies", "missing"], "/missing: found no such folder, allowed a folder"),
        (["--studies", ".", "--bundle", "another"], "--bundle: found 'another', allowed a folder of"),
        (["--studies", ".", "--port", "80x"], "--port: found '80x', allowed a number"),
        (["--studies"], "--studies: found nothing behind it, allowed a value"),
        (["--studys", "."], "--studys: found an option that there is not"),
    ],
)
def test_refusals(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = start(*arguments, folder=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not list(tmp_path.iterdir())


def test_help_names_every_option(tmp_path: Path) -> None:
    done = start("--help", folder=tmp_path)
    assert done.returncode == 0
    for option in ("--studies", "--bundle", "--host", "--port", "--app", "--venv", "--install"):
        assert f"\n  {option}" in done.stdout
    assert not list(tmp_path.iterdir())
