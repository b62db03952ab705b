import hashlib
import re
import subprocess
import sys
from types import SimpleNamespace

import torch

from medseg_ext.reports.provenance import (
    command_line,
    git_revision,
    graphics_processors,
    package_versions,
    processor,
    provenance,
    sha256,
)


def test_sha256(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"abc" * 10**6)
    assert sha256(path) == hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_entries(tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"abc")
    entries = provenance(weights, bundle="b 0.1.0")
    assert entries["weights"] == "model.pt"
    assert entries["weights_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert entries["bundle"] == "b 0.1.0"
    assert entries["date"][:2] == "20"
    assert "torch " in entries["packages"]
    assert all(isinstance(value, str) and value for value in entries.values())


def test_what_is_missing_is_left_out(tmp_path):
    assert "bundle" not in provenance()
    assert "weights_sha256" not in provenance(tmp_path / "none.pt")
    assert package_versions(["surely-not-installed"]) == {}
    assert git_revision(tmp_path) is None
    assert git_revision(tmp_path / "none") is None


def test_revision_marks_changes(tmp_path):
    def git(*words):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@e", *words],
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-m", "first")
    revision = git_revision(tmp_path)
    assert revision
    assert len(revision) >= 7
    (tmp_path / "f").write_text("2")
    assert git_revision(tmp_path) == revision + "+changes"


def test_command_and_processor():
    assert command_line().split()[0].startswith("python") or sys.orig_argv
    assert "cores" in (processor() or "")


def test_memory_and_graphics_processors(monkeypatch):
    assert re.fullmatch(r"\d+\.\d GiB", provenance()["memory"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert graphics_processors() is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    known = [SimpleNamespace(name=f"GPU {i}", total_memory=(i + 1) * 2**30) for i in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", known.__getitem__)
    assert provenance()["gpus"] == "GPU 0 1.0 GiB, GPU 1 2.0 GiB"
