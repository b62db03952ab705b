"""Pack: the same bytes every time, nothing of this machine inside, and what comes out is what went in."""

from __future__ import annotations

import functools
import http.server
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from monai.bundle import download, load

from medseg_ext.sharing.archive import write_zip
from medseg_ext.sharing.audit import audit_bundle
from medseg_ext.sharing.audit.code import check_code, own_files, wheel_faults
from medseg_ext.sharing.audit.torchscript import check_torchscript
from medseg_ext.sharing.exports import without_debug_records, without_onnx_notes
from medseg_ext.sharing.manifest import make_manifest
from medseg_ext.sharing.wheel import build_wheel

ROOT = Path(__file__).resolve().parents[2]


def test_torchscript_without_debug_records_is_the_same_network() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU()).eval()
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(network), stream, _extra_files={"metadata.json": b"{}"})
    small = without_debug_records(stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
    assert str(ROOT).encode() not in small
    extra = {"metadata.json": ""}
    loaded = torch.jit.load(io.BytesIO(small), _extra_files=extra)
    image = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(loaded(image), network(image))
    assert extra == {"metadata.json": b"{}"}
    faults, configs = check_torchscript(small)
    assert (faults, configs) == ([], {"metadata.json": b"{}"})


def test_onnx_without_notes() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    node = helper.make_node("Identity", ["x"], ["y"], doc_string="/home/somebody/net.py")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/net.py")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    model.metadata_props.add(key="a", value="/home/somebody")
    small = without_onnx_notes(model.SerializeToString())
    assert b"somebody" not in small
    onnx.checker.check_model(onnx.load_model_from_string(small))


def test_manifest() -> None:
    content = json.loads(make_manifest({"b": b"", "a/x": b"abc"}, {"name": "n", "version": "1"}))
    assert content["files"] == {
        "a/x": {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "size": 3},
        "b": {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0},
    }
    assert (content["format"], content["name"], content["version"]) == (1, "n", "1")


@pytest.fixture(scope="module")
def wheel() -> tuple[str, bytes]:
    """The package's wheel."""
    pytest.importorskip("hatchling")
    return build_wheel()


def test_wheel_is_that_of_the_running_package(wheel: tuple[str, bytes]) -> None:
    name, content = wheel
    assert build_wheel() == wheel
    assert wheel_faults(content, name) == []
    assert check_code({f"wheels/{name}": content}, frozenset()) == []


@pytest.mark.parametrize("change", ["byte", "added", "removed", "script", "requirement", "path file"])
def test_another_wheel_is_refused(wheel: tuple[str, bytes], change: str) -> None:
    name, content = wheel
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    (metadata,) = [path for path in files if path.endswith("/METADATA")]
    if change == "byte":
        files["medseg_ext/files.py"] += b" "
    elif change == "added":
        files["medseg_ext/more.py"] = b""
    elif change == "removed":
        del files["medseg_ext/files.py"]
    elif change == "script":
        files[metadata.replace("METADATA", "entry_points.txt")] = b"[console_scripts]\nx = os:abort\n"
    elif change == "requirement":
        files[metadata] = files[metadata].replace(b"\n\n", b"\nRequires-Dist: evil\n\n", 1)
    else:
        files["evil.pth"] = b"import os"
    stream = io.BytesIO()
    write_zip(stream, files)
    assert len(wheel_faults(stream.getvalue(), name)) == 1


def test_a_whole_copy_of_the_package_is_known() -> None:
    root = ROOT / "medseg_ext"
    copy = {path: (root.parent / path).read_bytes() for path in own_files()}
    assert check_code(copy, frozenset()) == []
    assert len(check_code(copy | {"medseg_ext/new.py": b""}, frozenset())) == len(copy) + 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "bundle.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "bundles").iterdir()))
def test_packed_fetched_installed_and_checked(name: str, served: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pytest.importorskip("onnxscript")
    packs = []
    for number in (1, 2):
        done = run("pack", name, "--output", tmp_path / str(number), "--json")
        assert done.returncode == 0, done.stderr
        packs.append(json.loads(done.stdout))
    assert packs[0]["sha256"] == packs[1]["sha256"]
    path = Path(packs[0]["zip"])
    assert audit_bundle(path).passed
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert str(Path(torch.__file__).parents[1]).encode() not in content

    folder, address = served
    path.rename(folder / path.name)
    download(name=name, bundle_dir=str(tmp_path / "hub"), url=f"{address}/{path.name}", progress=False)
    network = load(name, bundle_dir=str(tmp_path / "hub"), source="github")
    state = torch.load(tmp_path / "hub" / name / "models" / "model.pt", weights_only=True)
    assert network.state_dict().keys() == state.keys()

    installed = tmp_path / "installed" / name
    done = run("install", folder / path.name, installed, "--allow-unsigned", "--json")
    assert done.returncode == 0, done.stderr
    done = run("check", installed, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert [check["name"] for check in checks if not check["passed"]] == []
    assert "not in the bundle" not in {check["detail"] for check in checks}
