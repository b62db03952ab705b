"""The tensors of a TorchScript archive, without running what else it holds."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import PurePosixPath
from typing import Any

import torch

_NAMED_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a ZIP is what ``torch.jit.save`` writes; what ``torch.save`` writes has no table of constants."""
    return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def torchscript_tensors(archive: zipfile.ZipFile) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a TorchScript module, by the names they have in its state dict.

    ``torch.jit.load`` compiles the code in the archive and may run it. Here the table of attributes alone is read,
    by a pickle reader that builds tensors, lists and dictionaries and knows no other name.

    Args:
        archive: as ``torch.jit.save`` or MONAI's ``ckpt_export`` wrote it.

    Raises:
        pickle.UnpicklingError, KeyError, ValueError, RuntimeError: for anything else.
    """
    root = next(PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
    tables = _AttributeReader(archive, root).load()
    found: dict[str, torch.Tensor] = {}
    _collect(tables, "", found, set())
    return found


class _Attributes:
    """A module of an archive: what it holds by name. Its class and its code are left alone."""

    def __setstate__(self, state: Any) -> None:
        self.held = dict(state) if isinstance(state, dict) else {}


class _AttributeReader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: PurePosixPath) -> None:
        super().__init__(io.BytesIO(archive.read(str(root / "data.pkl"))))
        self.archive, self.root = archive, root
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a table of attributes may call."""
        if module.startswith("__torch__"):
            return type(name, (_Attributes,), {})  # of its own, so that nothing written to it stays
        if module == "torch" and name in _NAMED_TYPES:
            return _NAMED_TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # lists and dictionaries of one type
            return lambda value, *rest: value
        raise pickle.UnpicklingError(f"{module}.{name} in the table of attributes")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage, as a flat tensor."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a {kind} of {dtype} in the table of attributes")
        if key not in self.storages:
            content = bytearray(self.archive.read(str(self.root / "data" / str(key))))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if self.storages[key].numel() < count:
            raise pickle.UnpicklingError(f"{self.storages[key].numel()} values where {count} belong")
        return self.storages[key]


def _collect(module: Any, prefix: str, found: dict[str, torch.Tensor], seen: set[int]) -> None:
    if not isinstance(module, _Attributes) or id(module) in seen:
        return
    seen = seen | {id(module)}  # a shared module is found under each of its names, a ring is not followed
    for name, value in module.held.items():
        if isinstance(value, torch.Tensor):
            found[f"{prefix}{name}"] = value
        else:
            _collect(value, f"{prefix}{name}.", found, seen)
