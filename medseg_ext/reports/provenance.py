"""Where a number comes from: weights, versions, revision, hardware, command, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, sha256

PACKAGES = ("medseg-ext", "monai", "torch", "numpy", "scipy", "scikit-image", "nibabel")

#: The processor features on which the speed of these networks depends.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def provenance(
    weights: str | os.PathLike[str] | None = None,
    bundle: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """What has to stand beside a result so that it can be had again.

    Args:
        weights: checkpoint file, named by its SHA-256.
        bundle: name and version of the bundle, as ``lgg_2d_segmentation 0.1.0``.
        folder: a folder of the working tree whose git revision counts; that of this package when None.

    Returns:
        Text by name: ``bundle``, ``weights``, ``weights_sha256``, ``command``, ``date`` (with its offset from UTC),
        ``revision``, ``python``, ``packages``, ``processor``, ``memory``, ``gpus``, ``platform``.  What cannot be
        found out is left out.
    """
    entries = {
        "bundle": bundle,
        "weights": None if weights is None else Path(weights).name,
        "weights_sha256": None if weights is None or not Path(weights).is_file() else sha256(weights),
        "command": command_line(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "revision": git_revision(folder or Path(__file__).parent),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
        "processor": processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "gpus": graphics_processors(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    return {name: value for name, value in entries.items() if value}


def bundle_name(folder: str | os.PathLike[str]) -> str | None:
    """The bundle in a folder as ``lgg_2d_segmentation 0.1.0``; None where there is no metadata to read."""
    root = Path(folder).resolve()
    try:
        return f"{root.name} {read_json(root / 'configs' / 'metadata.json', 'the metadata of a bundle')['version']}"
    except (InputError, KeyError, TypeError):
        return None


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    return {name: found.version for name in names for found in importlib.metadata.distributions(name=name)}


def git_revision(folder: str | os.PathLike[str]) -> str | None:
    """Short revision of the working tree around ``folder``, ``+changes`` where files differ; None outside of git."""
    return git_says(folder, "describe", "--always", "--dirty=+changes", "--exclude=*")


def git_says(folder: str | os.PathLike[str], *arguments: str) -> str | None:
    """What git prints in a folder; None where it prints nothing, fails, or is not there."""
    try:
        shown = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None if shown.returncode == 0 else None


def processor() -> str | None:
    """The processor's name, its cores for this process, and the features that decide speed (Linux; elsewhere less)."""
    name, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [name, f"{cores} cores", " ".join(flag for flag in _FLAGS if flag in flags)]
    return ", ".join(part for part in parts if part) or None


def graphics_processors() -> str | None:
    """Names and memory of the GPUs that this process sees; None where there are none."""
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{gpu.name} {gpu.total_memory / 2**30:.1f} GiB" for gpu in found) or None


def command_line() -> str:
    """The command that started this process, as it would be typed."""
    return shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
