"""Sign, verify, install: tampering is refused and leaves nothing behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle as command
import pytest
from attacks import ATTACKS, harmless, write_archive

from medseg_ext.sharing.manifest import make_manifest

cryptography = pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private key and its public one, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def packed() -> dict[str, bytes]:
    files = harmless()
    return files | {"manifest.json": make_manifest(files, {"name": "victim", "version": "0.1.0"})}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: its status, and what it prints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def signed(tmp_path: Path, run: Any) -> tuple[Path, Path, Path]:
    """A zip with its signature, and the keys."""
    pytest.importorskip("model_signing")
    path = write_archive(packed(), tmp_path)
    private, public = make_keys(tmp_path, "lab")
    status, out, _ = run("sign", path, "--key", private, "--json")
    assert status == 0
    assert json.loads(out) == {"zip": str(path), "signature": f"{path}.sig"}
    return path, private, public


def test_signed_verified_installed(run, signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, _, public = signed
    assert run("verify", path, "--key", public)[0] == 0
    status, out, _ = run("install", path, tmp_path / "new" / "victim", "--key", public, "--json")
    assert (status, json.loads(out)["signed_by"]) == (0, str(public))
    installed = tmp_path / "new" / "victim"
    found = {
        file.relative_to(installed).as_posix(): file.read_bytes() for file in installed.rglob("*") if file.is_file()
    }
    assert found == packed()
    assert [file.name for file in installed.parent.iterdir()] == ["victim"]


def test_any_byte(run, signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, _, public = signed
    content = path.read_bytes()
    for at in (0, 30, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        status, _, err = run("verify", path, "--key", public)
        assert status == 1
        assert err.startswith(f"error: {path}: found a signature that does not hold (")
        status, _, err = run("install", path, tmp_path / "new", "--key", public)
        assert status == 1
        assert err.count("\n") == 1
        assert not (tmp_path / "new").exists()
    path.write_bytes(content)
    assert run("verify", path, "--key", public)[0] == 0


def test_another_key_and_another_file(run, signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, private, _ = signed
    _, other = make_keys(tmp_path, "other")
    assert run("verify", path, "--key", other)[0] == 1
    twin = tmp_path / "twin.zip"
    twin.write_bytes(path.read_bytes() + b"")
    (tmp_path / "twin.zip.sig").write_bytes(b"{}")
    assert run("verify", twin, "--key", other)[0] == 1
    status, _, err = run("verify", path, "--key", private)
    assert status == 1
    assert "no key to verify with" in err


@pytest.mark.parametrize("change", ["added", "removed"])
def test_added_and_removed_files(run, signed: tuple[Path, Path, Path], change: str, tmp_path: Path) -> None:
    path, _, public = signed
    files = packed()
    if change == "added":
        files["docs/more.md"] = b"x"
    else:
        del files["docs/README.md"]
    (tmp_path / "again").mkdir()
    other = write_archive(files, tmp_path / "again")
    path.write_bytes(other.read_bytes())
    assert run("verify", path, "--key", public)[0] == 1
    path.with_name(f"{path.name}.sig").unlink()
    status, out, err = run("install", path, tmp_path / "new", "--allow-unsigned")
    assert status == 1
    assert "[manifest]" in out
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_signature_is_not_passed_over(run, signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    status, _, err = run("install", signed[0], tmp_path / "new", "--allow-unsigned")
    assert status == 1
    assert "found a signature that nobody verifies" in err


def test_unsigned(run, tmp_path: Path) -> None:
    path = write_archive(packed(), tmp_path)
    assert run("install", path, tmp_path / "new")[0] == 2
    assert run("install", path, tmp_path / "new", "--allow-unsigned")[0] == 0
    status, _, err = run("install", path, tmp_path / "new", "--allow-unsigned")
    assert status == 1
    assert (
        err
        == f"error: {tmp_path / 'new'}: found something that is already there, allowed an empty folder or a new one\n"
    )


def test_without_a_manifest(run, tmp_path: Path) -> None:
    path = write_archive(harmless(), tmp_path)
    status, _, err = run("install", path, tmp_path / "new", "--allow-unsigned")
    assert status == 1
    assert "found no manifest.json, allowed a zip that `bundle.py pack` wrote" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["victim.zip"]


@pytest.mark.parametrize("name", ["zip_traversal", "zip_bomb", "zip_link", "zip_name_twice", "zip_overlap"])
def test_attacks_are_not_unpacked(run, name: str, tmp_path: Path) -> None:
    path = ATTACKS[name].write(tmp_path)
    status, _, err = run("install", path, tmp_path / "new" / "victim", "--allow-unsigned")
    assert status == 1
    assert err.startswith("error: ")
    assert not list((tmp_path / "new").iterdir())


def test_audit_of_the_command_line(run, tmp_path: Path) -> None:
    path = ATTACKS["os_system"].write(tmp_path)
    status, out, _ = run("audit", path, "--json")
    found = json.loads(out)
    assert (status, found["verdict"], found["bundle"]) == (1, "refused", "victim")
    assert found["findings"][0]["rule"] == "expression"
    assert found["findings"][0]["line"] > 1
    status, out, _ = run("audit", path)
    assert (status, out.splitlines()[-1]) == (1, f"{path}: refused, 1 finding (6 files)")
    status, _, err = run("audit", tmp_path / "nothing")
    assert (status, err) == (1, f"error: {tmp_path / 'nothing'}: found nothing, allowed a bundle's folder or its zip\n")


def test_lists_of_ones_own(run, tmp_path: Path) -> None:
    import hashlib

    path = ATTACKS["script"].write(tmp_path)
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  x\n" for content in (b"", b"import os\n"))
    (tmp_path / "sums").write_text(sums)
    assert run("audit", path)[0] == 1
    assert run("audit", path, "--trust", tmp_path / "sums")[0] == 0
    path = ATTACKS["target_prefix_only"].write(tmp_path / "second")
    (tmp_path / "names").write_text("monai_evil.Network\n")
    assert run("audit", path)[0] == 1
    assert run("audit", path, "--allow", tmp_path / "names")[0] == 0
    (tmp_path / "sums").write_text("no sum\n")
    status, _, err = run("audit", path, "--trust", tmp_path / "sums")
    assert (status, "found line 1 without a sum" in err) == (1, True)


@pytest.mark.parametrize("verb", ["pack", "sign", "verify", "audit", "check", "install"])
def test_help_and_wrong_command_lines(run, verb: str) -> None:
    status, out, _ = run(verb, "--help")
    assert (status, "--json" in out) == (0, True)
    assert run(verb, "--nothing")[0] == 2


def test_bad_input_of_every_verb(run, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "lab")
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ("pack", "nothing", "--output", tmp_path / "o"),
        ("sign", tmp_path / "x.zip", "--key", private),
        ("sign", private, "--key", public),
        ("verify", tmp_path / "x.zip", "--key", public),
        ("verify", private, "--key", public),
        ("audit", private),
        ("check", tmp_path / "x"),
        ("check", private),
        ("install", tmp_path / "x.zip", tmp_path / "new", "--key", public),
        ("install", private, tmp_path / "new", "--allow-unsigned"),
    ):
        status, _, err = run(*arguments)
        assert status == 1, arguments
        assert err.startswith("error: ") and err.count("\n") == 1, (arguments, err)
        assert ": found " in err and ", allowed " in err
        assert sorted(tmp_path.rglob("*")) == before, arguments


def test_the_command_runs_as_a_script() -> None:
    assert command.parse(["audit", "x"]).path == Path("x")
    assert "bundle" in sys.modules
