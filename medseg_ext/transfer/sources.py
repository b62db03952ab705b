"""Find and read the weights that a network is to start from, without running anything they hold."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from safetensors.torch import load as load_safetensors

from medseg_ext.errors import InputError, as_input_error
from medseg_ext.files import check_regular, sha256
from medseg_ext.transfer.names import find_state_dict
from medseg_ext.transfer.torchscript import is_torchscript, torchscript_tensors

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".ts", ".safetensors")
_ALLOWED = (
    "a bundle's folder or zip, a file of weights (.pt, .ts, .safetensors) or the id of a Hugging Face repository "
    "(owner/name or owner/name@revision)"
)
#: Where bundles and repositories keep their weights, the likeliest first.
PLACES = (
    "models/model.safetensors",
    "models/model.pt",
    "models/model.ts",
    "model.safetensors",
    "model.pt",
    "model.ts",
    "pytorch_model.bin",
)
_METADATA = "configs/metadata.json"
_REPOSITORY = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """Weights to start from.

    Args:
        path: the file, for messages.
        tensors: by name.
        sha256: of the file; of a zipped bundle that of the zip.
        channels: what the network was given, in order, where its bundle says so.
        regions: what it predicts, in order, likewise.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    sha256: str
    channels: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = field(default=None)


def read_source(
    source: str | os.PathLike[str], digest: str = "", key: str = "", cache: str | os.PathLike[str] | None = None
) -> Source:
    """Read weights from wherever they are.

    Args:
        source: a bundle's folder or zip, a file of weights, or the id of a Hugging Face repository, ``owner/name`` or
            ``owner/name@revision``; a path that exists goes before an id. A repository is fetched through
            ``huggingface_hub``, whose settings hold (``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``): what lies in its
            cache needs no network.
        digest: SHA-256 that the file has to have; empty for any.
        key: where in a checkpoint the state dict is, as ``ema.model``; empty where there is one only, or one under
            a usual name.
        cache: folder of Hugging Face's cache; None for the usual one.

    Raises:
        InputError: there is nothing, it is damaged, something else, or of another digest.
    """
    path = Path(source)
    if not path.exists():
        repository = _REPOSITORY.fullmatch(str(source))
        if repository is None or path.suffix in SUFFIXES:
            raise InputError(path, "nothing there", _ALLOWED)
        path = _fetch(repository["id"], repository["revision"], cache)
    if path.is_dir():
        metadata = _read_metadata(path / _METADATA)
        file = next((path / place for place in PLACES if (path / place).is_file()), None)
        if file is None:
            raise InputError(path, "a folder without weights", f"one that holds {' or '.join(PLACES)}")
        return _read_file(file, digest, key, metadata)
    check_regular(path, _ALLOWED)
    # a file that a bundle ships is that bundle's
    metadata = _read_metadata(path.absolute().parent.parent / _METADATA) if path.parent.name == "models" else {}
    return _read_file(path, digest, key, metadata)


def _fetch(repository: str, revision: str | None, cache: str | os.PathLike[str] | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise InputError(repository, "no huggingface_hub", 'the extra: pip install -e ".[hub]"') from error
    disable_progress_bars()
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=None if cache is None else Path(cache),
            allow_patterns=[*PLACES, _METADATA],
            max_workers=1,
        )
    except Exception as error:  # no such repository, no network, no access: huggingface_hub has an error for each
        raise as_input_error(error, repository, _ALLOWED) from error
    return Path(folder)


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _names(metadata: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = metadata.get(key)
    named = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(name, str) for name in value)
    return tuple(value) if named and value else None


def _read_file(path: Path, digest: str, key: str, metadata: Mapping[str, Any]) -> Source:
    try:
        found = sha256(path)
        if digest and found != digest.strip().lower():
            raise InputError(path, f"SHA-256 {found}", digest)
        with path.open("rb") as file:
            tensors, inner = _read_tensors(file, path, key)
    except InputError:
        raise
    except Exception as error:  # damaged files make the readers raise nearly anything
        reason = as_input_error(error, path, "").found
        raise InputError(path, f"no readable weights ({reason})", _ALLOWED) from error
    metadata = inner or metadata
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(path, f"values in {name} that are not finite", "finite weights")
    return Source(path, tensors, found, _names(metadata, "channel_order"), _names(metadata, "regions"))


def _read_tensors(file: IO[bytes], path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, and the metadata of a bundle where the file is one."""
    if path.suffix == ".safetensors":
        return find_state_dict(load_safetensors(file.read()), path, key), {}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if is_torchscript(archive):
                return find_state_dict(torchscript_tensors(archive), path, key), {}
            if not any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist()):
                return _read_bundle(archive, path, key)
    file.seek(0)
    return find_state_dict(torch.load(file, map_location="cpu", weights_only=True), path, key), {}


def _read_bundle(archive: zipfile.ZipFile, path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A zipped bundle; nothing is unpacked to disk, so that no name in it leads anywhere."""
    names = {PurePosixPath(name) for name in archive.namelist()}
    roots = [PurePosixPath(), *sorted({PurePosixPath(name.parts[0]) for name in names if name.parts})]
    place = next((root / place for place in PLACES for root in roots if root / place in names), None)
    if place is None:
        raise InputError(path, "a zip without weights", f"a bundle's, which holds {' or '.join(PLACES[:3])}")
    tensors, _ = _read_tensors(io.BytesIO(archive.read(str(place))), path / place, key)
    metadata = place.parent.parent / _METADATA
    content = json.loads(archive.read(str(metadata))) if metadata in names else {}
    return tensors, content if isinstance(content, dict) else {}
