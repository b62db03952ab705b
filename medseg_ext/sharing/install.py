"""Install a zip: verified, audited, complete, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.files import check_regular
from medseg_ext.sharing.archive import open_bundle
from medseg_ext.sharing.audit import Rules, Verdict, audit_bundle
from medseg_ext.sharing.manifest import MANIFEST, manifest_faults
from medseg_ext.sharing.signature import private_copy, signature_of, verify


class RefusedError(InputError):
    """A bundle that is not installed for what an audit found.

    Args:
        path: the zip.
        verdict: what the audit says.
    """

    def __init__(self, path: Path, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(
            path, f"{len(verdict.findings)} findings, first {verdict.findings[0]}", "a bundle that passes the audit"
        )

    def __reduce__(self) -> tuple[type[RefusedError], tuple[Path, Verdict]]:  # type: ignore[override]
        return type(self), (self.path, self.verdict)


def install_bundle(path: Path, dest: Path, key: Path | None = None, rules: Rules | None = None) -> Path:
    """Unpack a zip into ``dest`` after its signature, its manifest and an audit.

    A private copy of the zip is looked at and unpacked, beside ``dest``, and renamed at the end: at no time does
    ``dest`` hold half a bundle.

    Args:
        path: the zip, with its signature beside it.
        dest: the bundle's folder; it must not exist, or be empty.
        key: the public key of who signed; None takes a zip without a signature.
        rules: what the audit allows.

    Returns:
        ``dest``.

    Raises:
        InputError: the signature does not hold, there is no manifest or files differ from it, ``dest`` is not empty or
            cannot be written.
        RefusedError: the audit found something.
    """
    check_regular(path, "a bundle's zip")
    if not path.is_file():
        raise InputError(path, "no such file", "a bundle's zip")
    if dest.is_symlink() or (dest.exists() and (not dest.is_dir() or any(dest.iterdir()))):
        raise InputError(dest, "something that is already there", "an empty folder or a new one")
    if key is None and signature_of(path).exists():
        raise InputError(
            signature_of(path), "a signature that nobody verifies", "--key with the public key of who signed"
        )
    parent = dest.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        copy = private_copy(path, parent)
    except OSError as error:
        raise InputError(dest, error.strerror or str(error), "a writable folder with room left") from error
    try:
        _unpack(path, copy, dest, key, rules)
    except OSError as error:
        raise InputError(dest, error.strerror or str(error), "a writable folder with room left") from error
    finally:
        shutil.rmtree(copy.parent, ignore_errors=True)
    return dest


def _unpack(path: Path, copy: Path, dest: Path, key: Path | None, rules: Rules | None) -> None:
    if key is not None:
        try:
            verify(copy, key)
        except InputError as error:
            named = (
                path if error.path == copy else signature_of(path) if error.path == signature_of(copy) else error.path
            )
            raise InputError(named, error.found, error.allowed) from error
    verdict = audit_bundle(copy, rules)
    if not verdict.passed:
        raise RefusedError(path, verdict)
    with open_bundle(copy) as bundle:
        if MANIFEST not in bundle.sizes:
            raise InputError(path, "no manifest.json", "a zip that `bundle.py pack` wrote")
        faults = manifest_faults(bundle)
        if faults or bundle.findings:
            raise InputError(path, "files other than its manifest's", "the zip as it was packed")
        root = copy.parent / "unpacked"
        for name in bundle.sizes:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bundle.read(name))
    if dest.exists():
        dest.rmdir()  # empty, or this fails
    root.rename(dest)
