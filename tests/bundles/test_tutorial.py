"""Each bundle's notebook runs from the first cell to the last, on smaller phantoms than it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest

from .conftest import Small


def phantom_options(small: Small) -> list[str]:
    options = ["--layout", small.layout]
    for name in ("shape", "spacing", "kind"):
        if name in small.phantom:
            value = small.phantom[name]
            options += [f"--{name}", *([value] if isinstance(value, str) else map(str, value))]
    return options


def cells(bundle: Path) -> list[dict[str, Any]]:
    (path,) = (bundle / "docs").glob("*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_notebook_holds_no_output(bundle: Path) -> None:
    for cell in cells(bundle):
        assert not cell.get("outputs"), "pictures of a run could show a patient"
        assert cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), bundle.name, "exec")
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells(bundle)) == 1


def test_notebook_runs(bundle: Path, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(bundle / "docs")
    names: dict[str, Any] = {}
    for cell in cells(bundle):
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= {
                    "OUTPUT": str(tmp_path),
                    "PHANTOMS": 5,
                    "PHANTOM_OPTIONS": phantom_options(small),
                }
                names["TRAINING"] = {**small.network, **small.training}
    matplotlib.pyplot.close("all")
    scored = pd.read_csv(tmp_path / "scores" / "metrics.csv")
    assert list(scored["patient"]) == names["split"]["test"]
    assert (tmp_path / "training" / "model_best.pt").is_file()
