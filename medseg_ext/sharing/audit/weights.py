"""Check weights: tensors and nothing else."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch
from safetensors import deserialize

from medseg_ext.sharing.archive import BundleFiles, check_zip_structure
from medseg_ext.sharing.audit.pickles import pickle_faults
from medseg_ext.sharing.findings import quoted
from medseg_ext.sharing.paths import collisions

_TENSORS = "tensors, as torch.save writes a state dict"
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
#: What torch keeps in an archive beside data and code.
SIDE_FILES = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
_MOST_LEVELS = 8


def torch_archive(content: bytes) -> tuple[dict[str, bytes], list[str]]:
    """The files of an archive that ``torch.save`` or ``torch.jit.save`` wrote, below its root folder.

    Returns:
        Contents by path, and faults of the archive; nothing is to be read where there are any.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _DAMAGE as error:
        return {}, [f"no archive of torch ({quoted(error)})"]
    outer = BundleFiles("weights")
    check_zip_structure(archive, outer)
    faults = [f"{finding.found} ({quoted(finding.file)})" for finding in outer.findings]
    files, roots = {}, set()
    for entry in archive.infolist():
        root, _, path = entry.filename.partition("/")
        roots.add(root)
        if path in files:
            faults.append(f"the name {quoted(path)} twice")
        if entry.compress_type != zipfile.ZIP_STORED and not _may_be_deflated(entry.filename):
            faults.append(f"{quoted(path)}, compressed")
        if faults:
            return {}, faults
        try:
            files[path] = archive.read(entry)
        except _DAMAGE as error:
            return {}, [f"what cannot be read ({quoted(error)})"]
    if len(roots) != 1:
        faults.append(f"{len(roots)} folders at the top")
    faults += [f"two names that are one, {quoted(one)} and {quoted(two)}" for one, two in collisions(files)]
    return files, faults


def _may_be_deflated(path: str) -> bool:
    """Whether torch itself deflates such a file; it stores tensors."""
    return path.endswith((".py", ".pkl", ".debug_pkl")) or "/extra/" in path


def check_torch_weights(content: bytes) -> list[tuple[str, str]]:
    """Check a file that ``torch.save`` wrote.

    The pickle inside is read for the names that it imports, then loaded by torch's restricted unpickler
    (``weights_only``), and what comes out has to be tensors, numbers and texts in mappings and lists.

    Returns:
        Pairs of what was found and what is allowed.
    """
    if content[:2] != b"PK":
        return [("a pickle without an archive, or no weights", _TENSORS)]
    files, faults = torch_archive(content)
    if not faults:
        if "data.pkl" not in files:
            faults.append("an archive without data.pkl")
        else:
            faults += pickle_faults(files["data.pkl"])
        others = [p for p in files if p != "data.pkl" and p not in SIDE_FILES and not p.removeprefix("data/").isdigit()]
        faults += [f"{quoted(path)} in the archive" for path in others]
    if not faults:
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - damaged files make torch.load raise nearly anything
            faults.append(f"what torch's restricted unpickler refuses ({type(error).__name__})")
        else:
            fault = _not_tensors(state, 0)
            faults += [fault] if fault else []
    return [(fault, _TENSORS) for fault in faults]


def _not_tensors(value: Any, level: int) -> str | None:
    if level > _MOST_LEVELS:
        return "containers nested too deeply"
    if isinstance(value, torch.Tensor):
        return None if value.layout == torch.strided else "a tensor that is not dense"
    if isinstance(value, dict):
        parts: list[Any] = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif value is None or isinstance(value, bool | int | float | str | torch.device | torch.dtype):
        return None
    else:
        return f"a {type(value).__name__}"
    return next((fault for part in parts if (fault := _not_tensors(part, level + 1))), None)


def check_safetensors(content: bytes) -> list[tuple[str, str]]:
    """Check a safetensors file by its own library, which refuses headers that do not cover the file exactly.

    Returns:
        Pairs of what was found and what is allowed.
    """
    try:
        deserialize(content)
    except Exception as error:  # noqa: BLE001 - the library's own class, or overflow of what it computes
        return [(f"no readable safetensors ({quoted(error)})", "named tensors")]
    return []


def check_onnx(content: bytes) -> list[tuple[str, str]]:
    """Check an ONNX model: operators of ONNX alone, and no data in other files.

    Returns:
        Pairs of what was found and what is allowed.
    """
    try:
        import onnx
    except ImportError:
        return [("ONNX, which cannot be checked here", 'the library that reads it: pip install "medseg-ext[sharing]"')]
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # noqa: BLE001 - protobuf's own classes
        return [(f"no readable ONNX ({type(error).__name__})", "an ONNX model")]
    found = []
    if not model.graph.node:
        found.append(("an ONNX model without operators", "an ONNX model"))
    domains = {"", "ai.onnx", *(function.domain for function in model.functions)}
    foreign = sorted({opset.domain for opset in model.opset_import} - domains)
    found += [(f"operators of {quoted(domain)}", "those of ONNX") for domain in foreign]
    found += [
        (f"data of {quoted(tensor.name)} in another file", "all data in the file")
        for tensor in _tensors(model)
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    found += [
        (f"the operator {quoted(node.op_type)} of {quoted(node.domain)}", "those of ONNX")
        for node in _nodes(model)
        if node.domain not in domains
    ]
    return list(dict.fromkeys(found))


def _graphs(model: Any) -> list[Any]:
    graphs, waiting = [], [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        graphs.append(graph)
        for graph_node in graph.node:
            for attribute in graph_node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    return graphs


def _nodes(model: Any) -> list[Any]:
    return [graph_node for graph in _graphs(model) for graph_node in graph.node]


def _tensors(model: Any) -> list[Any]:
    tensors = [tensor for graph in _graphs(model) for tensor in getattr(graph, "initializer", ())]
    for graph in _graphs(model):
        for sparse in getattr(graph, "sparse_initializer", ()):
            tensors += [sparse.values, sparse.indices]
    for graph_node in _nodes(model):
        for attribute in graph_node.attribute:
            tensors += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
    return tensors
