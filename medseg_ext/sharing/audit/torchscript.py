"""Check TorchScript: code of tensor operators over data, read and not loaded."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from medseg_ext.sharing.audit.pickles import TENSOR_NAMES, pickle_faults
from medseg_ext.sharing.audit.weights import SIDE_FILES, torch_archive
from medseg_ext.sharing.findings import quoted
from medseg_ext.sharing.words import words

OPERATORS_FILE = Path(__file__).with_name("operators.txt")

_ALLOWED = "a network of torch's own operators, as torch.jit.save writes it"
_PRIMITIVES = words(
    """
    NumToTensor RaiseException TupleIndex TupleUnpack abs data device dtype index is_cpu is_cuda is_meta is_mps
    layout max min rangelist requires_grad tolist type unchecked_unwrap_optional IfThenElse Uninitialized itemsize
    nbytes
    """
)
_NAMES = TENSOR_NAMES | {
    f"torch.jit._pickle {name}"
    for name in ["build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag"]
}
#: Classes that the archive itself defines; not those that C++ registers.
_OWN_CLASSES = r"__torch__\.(?!torch\.classes\.)[\w.]+ \w+"


@cache
def operators() -> frozenset[str]:
    """Names of torch's operators (``aten::``) that neither read nor write files."""
    return frozenset(OPERATORS_FILE.read_text(encoding="utf-8").split())


def check_torchscript(content: bytes) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    """Check an archive that ``torch.jit.save`` wrote.

    Returns:
        Pairs of what was found and what is allowed; and the JSON files that MONAI stores in the archive, by name.
    """
    if content[:2] != b"PK":
        return [("no archive", _ALLOWED)], {}
    files, faults = torch_archive(content)
    if faults:
        return [(fault, _ALLOWED) for fault in faults], {}
    if "data.pkl" not in files or "constants.pkl" not in files:
        faults.append("an archive without data.pkl and constants.pkl")
    extra = {}
    for path, inner in files.items():
        folder, _, name = path.partition("/")
        if path.endswith((".pkl", ".debug_pkl")):
            found = pickle_faults(inner, _NAMES, _OWN_CLASSES, builds=True)
            faults += [f"{quoted(path)}: {fault}" for fault in found]
        elif folder == "code" and path.endswith(".py"):
            faults += [f"{quoted(path)}: {fault}" for fault in _code_faults(inner)]
        elif folder == "extra" and name.endswith(".json") and "/" not in name:
            extra[name] = inner
        elif path not in SIDE_FILES and not (folder in {"data", "constants"} and name.isdigit()):
            faults.append(f"{quoted(path)} in the archive")
    return [(fault, _ALLOWED) for fault in dict.fromkeys(faults)], extra


def _code_faults(content: bytes) -> list[str]:
    """Operators other than torch's own, in TorchScript's code, which has the grammar of Python."""
    try:
        tree = ast.parse(content.decode("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ["code that cannot be parsed"]
    faults = []
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            faults.append("an import")
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        parts: list[str] = []
        part: ast.expr = node
        while isinstance(part, ast.Attribute):
            inner.add(id(part))
            parts.insert(0, part.attr)
            part = part.value
        if not isinstance(part, ast.Name):
            continue
        name = ".".join([part.id, *parts])
        if (part.id == "torch" and not (len(parts) == 1 and parts[0] in operators())) or (
            part.id == "ops" and not (len(parts) == 2 and parts[0] == "prim" and parts[1] in _PRIMITIVES)
        ):
            faults.append(f"the operator {quoted(name)}")
        elif name.startswith("__torch__.torch.classes"):
            faults.append(f"the class {quoted(name)}")
    return faults
