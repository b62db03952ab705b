"""A bundle's manifest: what it holds, to the byte, and where that comes from."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from medseg_ext.sharing.findings import quoted

if TYPE_CHECKING:
    from medseg_ext.sharing.archive import BundleFiles

MANIFEST = "manifest.json"
FORMAT = 1
_SUM = re.compile(r"[0-9a-f]{64}")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def make_manifest(files: dict[str, bytes], about: dict[str, Any]) -> bytes:
    """Write a manifest.

    Args:
        files: contents by path in the bundle, without the manifest itself.
        about: what else it says: name, version, revision, packages, training.

    Returns:
        JSON with ``files``: for each path ``sha256`` and ``size`` in bytes.
    """
    entries = {path: {"sha256": digest(files[path]), "size": len(files[path])} for path in sorted(files)}
    return (json.dumps({"format": FORMAT, **about, "files": entries}, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(bundle: BundleFiles) -> dict[str, Any]:
    """Read a bundle's manifest.

    Raises:
        ValueError: there is none, or it is of another format.
    """
    if MANIFEST not in bundle.sizes:
        raise ValueError("no manifest")
    try:
        content = json.loads(bundle.read(MANIFEST))
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("files"), dict):
        raise ValueError(f"no manifest of format {FORMAT}")
    for path, entry in content["files"].items():
        good = isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)
        if not good or not _SUM.fullmatch(entry["sha256"]):
            raise ValueError(f"an entry without sum and size, {quoted(path)}")
    return content


def manifest_faults(bundle: BundleFiles) -> list[tuple[str, str, str]]:
    """Files that are not as the manifest says.

    Returns:
        Path, what was found, and what is allowed, for each file that was changed, added or removed.
    """
    try:
        entries = read_manifest(bundle)["files"]
    except ValueError as error:
        return [(MANIFEST, quoted(error), "the manifest that `bundle.py pack` writes")]
    faults = []
    for path in sorted(entries.keys() | bundle.sizes.keys() - {MANIFEST}):
        if path not in bundle.sizes:
            faults.append((path, "nothing", "the file that the manifest lists"))
        elif path not in entries:
            faults.append((path, "a file that the manifest does not list", "the files of the manifest"))
        else:
            content = bundle.read(path)
            if len(content) != entries[path]["size"] or digest(content) != entries[path]["sha256"]:
                faults.append((path, "other bytes than the manifest's sum", "the file that was packed"))
    return faults
