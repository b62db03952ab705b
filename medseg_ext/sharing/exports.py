"""TorchScript and ONNX of a bundle, the same bytes every time and on every machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import medseg_ext
from medseg_ext.errors import InputError, escaped
from medseg_ext.sharing.archive import write_zip_in_order

#: Tensors of torch's archives begin at multiples of this many bytes.
_ALIGNMENT = 64
_PROGRAM = """
import json, sys, torch, monai.bundle
torch.manual_seed(0)
getattr(monai.bundle, sys.argv[1])(**json.loads(sys.argv[2]))
"""


def export_torchscript(bundle: Path) -> bytes:
    """Export a bundle's network by ``monai.bundle ckpt_export``.

    The debug records are left out: they hold the paths of the machine that exported.

    Args:
        bundle: its folder, with ``models/model.pt``.

    Raises:
        InputError: the network cannot be exported.
    """
    arguments = {
        "net_id": "network_def",
        "ckpt_file": "models/model.pt",
        "meta_file": "configs/metadata.json",
        "config_file": "configs/inference.json",
    }
    return without_debug_records(_export(bundle, "ckpt_export", arguments, "model.ts"))


def export_onnx(bundle: Path) -> bytes | None:
    """Export a bundle's network by ``monai.bundle onnx_export`` with the arguments in ``configs/onnx_export.yaml``.

    What the exporter notes about each operator, with paths of this machine, is left out.

    Returns:
        None for a bundle without that file.

    Raises:
        InputError: the network cannot be exported.
    """
    arguments = Path("configs/onnx_export.yaml")
    if not (bundle / arguments).is_file():
        return None
    return without_onnx_notes(_export(bundle, "onnx_export", {"args_file": arguments.as_posix()}, "model.onnx"))


def _export(bundle: Path, verb: str, arguments: dict[str, Any], name: str) -> bytes:
    """Run an exporter in a process of its own: sets and random values come out the same there, and so does the file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / name
        search = [str(Path(medseg_ext.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, verb, json.dumps({**arguments, "filepath": str(target)})],
            cwd=bundle,
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join(search),
                "CUDA_VISIBLE_DEVICES": "",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not target.is_file():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise InputError(bundle, f"a network that {verb} does not export ({escaped(last)})", "one that it exports")
        return target.read_bytes()


def without_debug_records(content: bytes) -> bytes:
    """A TorchScript archive without its ``.debug_pkl`` files, which only error messages use."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        files = [(name, source.read(name)) for name in source.namelist() if not name.endswith(".debug_pkl")]
    stream = io.BytesIO()
    write_zip_in_order(stream, files, alignment=_ALIGNMENT)
    return stream.getvalue()


def without_onnx_notes(content: bytes) -> bytes:
    """An ONNX model without the notes of its exporter; names, shapes and operators stay."""
    import onnx

    model = onnx.load_model_from_string(content)
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        for name in ("metadata_props", "doc_string"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += value if isinstance(value, list) or hasattr(value, "append") else [value]
    return model.SerializeToString(deterministic=True)
