"""Weights are loaded whole or refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg_ext.workflow import load_weights


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(network().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_all_of_it(path: Path) -> None:
    wanted = torch.load(path)
    loaded = load_weights(network(), path)
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_half_precision(path: Path) -> None:
    state = torch.load(path)
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    loaded = load_weights(network(), path).state_dict()
    assert loaded["0.weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["0.weight"], state["0.weight"], atol=1e-3, rtol=0)


def changed(**changes) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        state = torch.load(path)
        for name, value in changes.items():
            if value is None:
                del state[name.replace("_", ".", 1)]
            else:
                state[name.replace("_", ".", 1)] = value
        torch.save(state, path)

    return change


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "found no file, allowed the weights of this network"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "found no file"),
    "empty": (lambda p: p.write_bytes(b""), "found no readable weights"),
    "text": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "found no readable weights"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "found no readable weights"),
    "code": (lambda p: torch.save({"0.weight": Bomb()}, p), "found no readable weights"),
    "code in a plain pickle": (lambda p: p.write_bytes(pickle.dumps(Bomb())), "found no readable weights"),
    "a whole module": (lambda p: torch.save(network(), p), "found no readable weights"),
    "wrapped": (lambda p: torch.save({"model": torch.load(p)}, p), "found something other than a bare state dict"),
    "a tensor": (lambda p: torch.save(torch.zeros(2), p), "found something other than a bare state dict"),
    "nothing": (lambda p: torch.save({}, p), "found weights of another network (7 tensors missing"),
    "one missing": (
        changed(**{"1_bias": None}),
        "found weights of another network (1 tensors missing, 0 unknown, 0 of another shape, e.g. 1.bias), "
        "allowed the 7 tensors of Sequential",
    ),
    "one surplus": (changed(**{"2_bias": torch.zeros(1)}), "0 tensors missing, 1 unknown, 0 of another shape"),
    "another shape": (
        changed(**{"0_weight": torch.zeros(3, 4, 1, 1)}),
        "(0 tensors missing, 0 unknown, 1 of another shape, e.g. 0.weight)",
    ),
    "another shape that would broadcast": (changed(**{"0_weight": torch.zeros(1)}), "1 of another shape"),
    "other names": (lambda p: torch.save({"module." + k: v for k, v in torch.load(p).items()}, p), "7 unknown"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("case", CASES)
def test_refused(path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    spoil, message = CASES[case]
    spoil(path)
    fresh = network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(SystemExit) as caught:
        load_weights(fresh, path)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: found ")
    assert message in line
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    assert not Path("exploded").exists()


def test_numbers_that_are_none(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(path)
    state["0.weight"][0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(SystemExit):
        load_weights(network(), path)
    assert capsys.readouterr().err == (
        f"error: {path}: found values in 0.weight that are not finite, allowed finite weights\n"
    )
