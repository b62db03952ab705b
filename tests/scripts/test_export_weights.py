"""Weights in half precision, or none."""

from __future__ import annotations

import sys
from pathlib import Path

import export_weights
import pytest
import torch


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    source, target = tmp_path / "model_best.pt", tmp_path / "model.pt"
    monkeypatch.setattr(sys, "argv", ["export_weights.py", str(source), str(target)])
    return source, target


def test_half_of_everything_and_shared_once(files: tuple[Path, Path]) -> None:
    shared, steps = torch.tensor([1.5, -65504.0]), torch.tensor(3)
    torch.save({"a": shared, "b": shared, "first": shared[:1], "steps": steps}, files[0])
    export_weights.main()
    state = torch.load(files[1], weights_only=True)
    assert {name: value.dtype for name, value in state.items()} == {
        "a": torch.float16, "b": torch.float16, "first": torch.float16, "steps": torch.int64
    }  # fmt: skip
    assert state["a"].data_ptr() == state["b"].data_ptr()
    assert (state["a"].tolist(), state["first"].tolist()) == ([1.5, -65504.0], [1.5])


@pytest.mark.parametrize("value", [70000.0, -1e30, float("inf"), float("nan")])
def test_what_half_precision_cannot_hold(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], value: float
) -> None:
    torch.save({"fine": torch.ones(2), "block.weight": torch.tensor([1.0, value])}, files[0])
    with pytest.raises(SystemExit) as end:
        export_weights.main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {files[0]}: found block.weight with values up to ")
    assert line.endswith(", allowed 65504 at the most, for float16")
    assert not files[1].exists()
