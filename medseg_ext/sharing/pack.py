"""Pack a bundle into a zip: the same bytes from the same commit and versions."""

from __future__ import annotations

import io
import platform
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, write_atomically
from medseg_ext.reports.provenance import git_revision, git_says, package_versions
from medseg_ext.sharing.archive import write_zip
from medseg_ext.sharing.audit import audit_bundle
from medseg_ext.sharing.exports import export_onnx, export_torchscript
from medseg_ext.sharing.manifest import MANIFEST, digest, make_manifest
from medseg_ext.sharing.wheel import build_wheel

#: What a zip takes of a bundle's folder; the results of runs stay behind.
INCLUDED = ("LICENSE", "configs", "docs", "models")
_NEEDED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt")
_WEIGHTS = "models/model.pt"


def pack_bundle(bundle: Path, output_dir: Path) -> Path:
    """Write ``<name>_v<version>.zip``, as ``monai.bundle download`` expects it: one folder, named as the bundle.

    It holds licence, data licence, model card, configs, weights, TorchScript, ONNX where the bundle exports it, the
    package ``medseg_ext`` as a wheel in ``wheels/``, and ``manifest.json``.

    Args:
        bundle: its folder.
        output_dir: where the zip goes; one of the same name is replaced once the new one is complete.

    Returns:
        The zip.

    Raises:
        InputError: the bundle is not complete, cannot be exported, or does not pass the audit.
    """
    metadata = read_json(bundle / "configs" / "metadata.json", "a bundle's metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version or not all(part.isalnum() for part in version.split(".")):
        raise InputError(bundle / "configs" / "metadata.json", f"version {version!r}", "a version, as 0.1.0")
    bundle = bundle.resolve()
    files = _own_files(bundle)
    for name in (*_NEEDED, _WEIGHTS):
        if name not in files:
            raise InputError(bundle / name, "no such file", "a complete bundle")
    files["models/model.ts"] = export_torchscript(bundle)
    onnx = export_onnx(bundle)
    if onnx is not None:
        files["models/model.onnx"] = onnx
    wheel, content = build_wheel()
    files[f"wheels/{wheel}"] = content
    files[MANIFEST] = make_manifest(files, about(bundle, metadata))
    stream = io.BytesIO()
    write_zip(stream, {f"{bundle.name}/{path}": content for path, content in files.items()})
    target = output_dir / f"{bundle.name}_v{version}.zip"
    write_atomically(target, stream.getvalue())
    verdict = audit_bundle(target)
    if not verdict.passed:
        target.unlink()
        raise InputError(bundle, f"what the audit refuses ({verdict.findings[0]})", "a bundle that passes the audit")
    return target


def _own_files(bundle: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink():
            raise InputError(path, "a link", "files and folders")
        if path.is_file() and name.split("/")[0] in INCLUDED and not any(p.startswith(".") for p in name.split("/")):
            files[name] = path.read_bytes()
    return files


def about(bundle: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of where a bundle comes from; nothing of it changes from run to run.

    Returns:
        ``name``, ``version``; ``revision``, that of the working tree; ``packages``, the versions installed here of what
        the bundle names; ``python``; ``training``: the data, the recipe and weights by their SHA-256, and the commit
        that brought the weights.
    """
    wanted = {"monai", "torch", "numpy", "onnx", *metadata.get("required_packages_version", {})}
    recipe, weights = bundle / "configs" / "train.json", bundle / _WEIGHTS
    return {
        "name": bundle.name,
        "version": metadata["version"],
        "revision": git_revision(bundle),
        "python": platform.python_version(),
        "packages": package_versions(sorted(canonicalize_name(name) for name in wanted)),
        "training": {
            "data": metadata.get("data_source"),
            "recipe": "configs/train.json" if recipe.is_file() else None,
            "recipe_sha256": digest(recipe.read_bytes()) if recipe.is_file() else None,
            "weights_sha256": digest(weights.read_bytes()),
            "weights_revision": git_says(weights.parent, "log", "-1", "--format=%H", "--", weights.name),
            "metrics": metadata.get("eval_metrics"),
        },
    }
