"""Weights from everywhere, without running what they hold, and a line for everything that is none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet
from safetensors.torch import save_file
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.reports import sha256
from medseg_ext.transfer import read_source


class Shared(nn.Module):
    """Part twice under two names, a buffer, several types."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
        self.again = self.first
        self.register_buffer("steps", torch.tensor([1, 2, 3]))
        self.halves = nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.first(x)[:, :2])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Shared()


STATE = network().state_dict()


def check(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == STATE.keys()
    for name, value in STATE.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def write_bundle(folder: Path) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    torch.save(STATE, folder / "models" / "model.pt")
    (folder / "configs" / "metadata.json").write_text(json.dumps({"channel_order": ["t1", "flair"], "regions": ["wt"]}))
    return folder


def write_script(path: Path, trace: bool = False) -> Path:
    module = network().eval()
    made = torch.jit.trace(module, torch.zeros(1, 2, 8, 8)) if trace else torch.jit.script(module)
    torch.jit.save(made, path)
    return path


WRITERS: dict[str, Callable[[Path], object]] = {
    "bare.pt": lambda path: torch.save(STATE, path),
    "old.pt": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "nested.ckpt": lambda path: torch.save({"epoch": 3, "state_dict": STATE, "optimizer": {"state": {}}}, path),
    "state.pt": lambda path: torch.save({"network": STATE, "objects": {"network": STATE}, "rng": torch.zeros(2)}, path),
    "scripted.ts": write_script,
    "traced.ts": lambda path: write_script(path, trace=True),
    "scripted.pt": write_script,
    "some.safetensors": lambda path: save_file({name: value.clone() for name, value in STATE.items()}, path),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRITERS)
def test_files(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    key = "network" if name == "state.pt" else ""
    source = read_source(tmp_path / name, key=key)
    check(dict(source.tensors))
    assert source.path == tmp_path / name
    assert source.sha256 == sha256(tmp_path / name)
    assert source.channels is None and source.regions is None


def test_a_bundle_and_its_zip_say_what_they_were_given(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "some_bundle")
    shutil.make_archive(str(tmp_path / "some_bundle"), "zip", tmp_path, "some_bundle")
    for path in (folder, tmp_path / "some_bundle.zip", folder / "models" / "model.pt"):
        source = read_source(path)
        check(dict(source.tensors))
        assert (source.channels, source.regions) == (("t1", "flair"), ("wt",))
    assert read_source(tmp_path / "some_bundle.zip").sha256 == sha256(tmp_path / "some_bundle.zip")


def test_a_zip_with_the_bundle_at_its_root(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "some_bundle")
    shutil.make_archive(str(tmp_path / "flat"), "zip", folder)
    assert read_source(tmp_path / "flat.zip").regions == ("wt",)


def cached(cache: Path, files: Path, revision: str = "main") -> None:
    """A repository as Hugging Face's cache has it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = cache / "models--someone--some-model"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / revision).write_text(commit)
    shutil.copytree(files, root / "snapshots" / commit)


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached(tmp_path / "hub", write_bundle(tmp_path / "files"), "v1")
    source = read_source("someone/some-model@v1", cache=tmp_path / "hub")
    check(dict(source.tensors))
    assert source.channels == ("t1", "flair")
    with pytest.raises(InputError, match="someone/other: found"):
        read_source("someone/other", cache=tmp_path / "hub")


def test_a_plain_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    files = tmp_path / "files"
    files.mkdir()
    save_file({name: value.clone() for name, value in STATE.items()}, files / "model.safetensors")
    cached(tmp_path / "hub", files)
    check(dict(read_source("someone/some-model", cache=tmp_path / "hub").tensors))


def test_digest(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model.pt")
    right = sha256(tmp_path / "model.pt")
    assert read_source(tmp_path / "model.pt", right.upper()).sha256 == right
    with pytest.raises(InputError, match=f"found SHA-256 {right}, allowed {'0' * 64}"):
        read_source(tmp_path / "model.pt", "0" * 64)


class Payload:
    """What a pickle can do to whoever opens it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Payload.place),)  # type: ignore[attr-defined]


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    Payload.place = tmp_path / "was_run"  # type: ignore[attr-defined]
    torch.save({"state_dict": STATE, "extra": Payload()}, tmp_path / "bad.pt")
    write_script(tmp_path / "good.ts")
    with zipfile.ZipFile(tmp_path / "good.ts") as good, zipfile.ZipFile(tmp_path / "bad.ts", "w") as bad:
        for name in good.namelist():
            content = pickle.dumps(Payload(), 2) if name.endswith("/data.pkl") else good.read(name)
            bad.writestr(name, content)
    for name in ("bad.pt", "bad.ts"):
        with pytest.raises(InputError, match=f"{name}: found no readable weights"):
            read_source(tmp_path / name)
    assert not Payload.place.exists()  # type: ignore[attr-defined]


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("name", ["bare.pt", "old.pt", "scripted.ts", "some.safetensors"])
def test_truncated(name: str, share: float, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    truncate(tmp_path / name, share)
    with pytest.raises(InputError, match=f"{name}: found no readable weights"):
        read_source(tmp_path / name)


def test_other_content(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "text.pt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, tmp_path / "two.pt")
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for path, found in {
        empty: "a folder without weights",
        tmp_path / "gone.pt": "nothing there",
        tmp_path / "gone": "nothing there",
        tmp_path / "text.pt": "no readable weights",
        tmp_path / "list.pt": "a list",
        tmp_path / "none.pt": "0 state dicts",
        tmp_path / "two.pt": "2 state dicts, allowed one, or the key of one: a, b",
        tmp_path / "nan.pt": "values in w that are not finite",
        tmp_path / "other.zip": "a zip without weights",
    }.items():
        with pytest.raises(InputError) as caught:
            read_source(path)
        assert f"{path}: found {found}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert read_source(tmp_path / "two.pt", key="b").tensors.keys() == {"x"}
    with pytest.raises(InputError, match="no state dict under 'c', allowed a, b"):
        read_source(tmp_path / "two.pt", key="c")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="a pipe, socket or device"):
        read_source(tmp_path / "pipe.pt")


@pytest.mark.filterwarnings("ignore")
def test_a_script_of_monai(tmp_path: Path) -> None:
    made = UNet(3, 1, 2, (4, 8, 8), (2, 2), num_res_units=1).eval()
    torch.jit.save(torch.jit.script(made), tmp_path / "unet.ts")
    found, wanted = read_source(tmp_path / "unet.ts").tensors, made.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
