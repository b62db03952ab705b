"""Check that a bundle keeps MONAI's contract: metadata, properties, network, exports, numbers.

This runs the bundle's configs, so only on a bundle that passed the audit.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import jsonschema
from packaging.version import InvalidVersion, Version

import medseg_ext
from medseg_ext.errors import InputError, escaped
from medseg_ext.files import read_json, write_atomically

#: How a bundle says on which phantoms its numbers can be had again, and what they are.
PHANTOMS = "docs/phantom_metrics.json"
_REQUIRED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "models/model.pt")
#: What a program of another processor or library may differ by.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-3
_LARGEST_FILE = 25 * 10**6

_PROPERTIES = """
import json, sys
from monai.bundle import ConfigWorkflow
kind, config, options = sys.argv[1:]
workflow = ConfigWorkflow(config_file=config, workflow_type=kind, logging_file=False, **json.loads(options))
workflow.initialize()
missing = workflow.check_properties()
sys.exit(f"properties that are missing: {', '.join(missing)}" if missing else 0)
"""
_PARITY = """
import json, sys, numpy, torch
from monai.bundle import ConfigParser
kind, relative, absolute = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
parser = ConfigParser()
parser.read_config("configs/inference.json")
parser.read_meta("configs/metadata.json")
network = parser.get_parsed_content("network_def").cpu().eval()
state = torch.load("models/model.pt", map_location="cpu", weights_only=True)
network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
from monai.bundle.scripts import _get_fake_input_shape
torch.manual_seed(0)
image = torch.randn(tuple(_get_fake_input_shape(parser)))
image = torch.cat([image, image.flip(-1)]) if len(image) == 1 else image
with torch.no_grad():
    expected = network(image).numpy()
    if kind == "torchscript":
        found = torch.jit.load("models/model.ts", map_location="cpu").eval()(image).numpy()
    else:
        import onnxruntime
        session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
if found.shape != expected.shape or not numpy.allclose(found, expected, rtol=relative, atol=absolute):
    sys.exit("outputs that differ from those of model.pt")
"""


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Args:
        name: of the check. passed: whether it holds.
        detail: what was found.
    """

    name: str
    passed: bool
    detail: str

    def as_json(self) -> dict[str, Any]:
        """The result for machines."""
        return asdict(self)


class _Failed(Exception):  # noqa: N818 - it tells of a bundle, not of this program
    """What does not hold, in a sentence."""


def check_bundle(bundle: Path) -> list[Result]:
    """Check a bundle that passed the audit.

    Args:
        bundle: its folder.

    Returns:
        One result for each check, in order; later ones are made even where earlier ones fail.
    """
    bundle = bundle.resolve()
    checks: list[tuple[str, Callable[[Path], str]]] = [
        ("files", _check_files),
        ("metadata schema", _check_schema),
        ("versions", _check_versions),
        ("properties for training", lambda path: _check_properties(path, "train")),
        ("properties for inference", lambda path: _check_properties(path, "infer")),
        ("network takes and gives what the metadata says", _check_network),
        ("TorchScript agrees with the weights", lambda path: _check_export(path, "torchscript", "models/model.ts")),
        ("ONNX agrees with the weights", lambda path: _check_export(path, "onnx", "models/model.onnx")),
        ("numbers on phantoms", _check_phantoms),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(Result(name, True, check(bundle)))
        except (_Failed, InputError) as error:
            results.append(Result(name, False, str(error)))
    return results


def _check_files(bundle: Path) -> str:
    missing = [name for name in _REQUIRED if not (bundle / name).is_file()]
    if missing:
        raise _Failed(f"missing: {', '.join(missing)}")
    large = [path.name for path in bundle.rglob("*") if path.is_file() and path.stat().st_size > _LARGEST_FILE]
    return f"complete; over 25 MB, for the model zoo: {', '.join(large)}" if large else "complete"


def _metadata(bundle: Path) -> dict[str, Any]:
    content = read_json(bundle / "configs" / "metadata.json", "a bundle's metadata")
    if not isinstance(content, dict):
        raise _Failed("metadata.json is no mapping")
    return content


def _check_schema(bundle: Path) -> str:
    metadata = _metadata(bundle)
    schemas = sorted((bundle / "configs").glob("meta_schema_*.json"))
    if not schemas:
        raise _Failed("no configs/meta_schema_*.json: without a network the metadata cannot be held to its schema")
    schema = read_json(schemas[-1], "a JSON schema")
    try:
        jsonschema.validate(metadata, schema)
    except jsonschema.ValidationError as error:
        raise _Failed(f"{'/'.join(map(str, error.absolute_path))}: {escaped(error.message)[:200]}") from error
    except jsonschema.SchemaError as error:
        raise _Failed(f"{schemas[-1].name} is no schema") from error
    return schemas[-1].name


def _number(text: object) -> Version:
    try:
        return Version(str(text))
    except InvalidVersion as error:
        raise _Failed(f"{escaped(text)} is no version") from error


def _check_versions(bundle: Path) -> str:
    """Versions are compared as numbers: 0.5.10 comes after 0.5.9, and text has it otherwise."""
    metadata = _metadata(bundle)
    version = _number(metadata.get("version"))
    changes = metadata.get("changelog")
    if not isinstance(changes, dict) or metadata["version"] not in changes:
        raise _Failed(f"{version} is not in the changelog")
    newest = max(map(_number, changes))
    if newest != version:
        raise _Failed(f"version {version}, but the changelog goes to {newest}")
    wanted = {"monai": metadata.get("monai_version"), "torch": metadata.get("pytorch_version")}
    for name, least in wanted.items():
        try:
            here = _number(installed_version(name))
        except PackageNotFoundError as error:
            raise _Failed(f"{name} is not installed") from error
        # made with a newer minor version than what is installed here
        if _number(least).release[:2] > here.release[:2]:
            raise _Failed(f"{name} {least} is wanted, {here} is installed")
    if max(version.release) > 9:
        return f"{version}; MONAI compares versions as text, where a part above 9 sorts wrongly"
    return str(version)


def _environment() -> dict[str, str]:
    search = [str(Path(medseg_ext.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    dropped = {"MLFLOW_TRACKING_URI"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    return environment | {"PYTHONPATH": os.pathsep.join(search), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _run(bundle: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=bundle,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("error: ")] or lines or ["no output"]
        raise _Failed(escaped(told[-1])[:300])


@contextmanager
def _phantoms(bundle: Path) -> Iterator[tuple[dict[str, Any], Path, Path]]:
    """The bundle's phantoms drawn, with what it says of them: description, folder of studies, folder for results."""
    described = read_json(bundle / PHANTOMS, "phantoms and the metrics on them")
    expected: dict[str, type | tuple[type, ...]] = {"arguments": list, "metrics": dict, "tolerance": (int, float)}
    for name, kind in expected.items():
        if not isinstance(described, dict) or not isinstance(described.get(name), kind):
            raise _Failed(f"{PHANTOMS} without {name}")
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        _run(bundle, "-m", "medseg_ext.phantoms", str(studies), *map(str, described["arguments"]))
        yield described, studies, Path(folder) / "results"


def _check_properties(bundle: Path, kind: str) -> str:
    config = {"train": "configs/train.json", "infer": "configs/inference.json"}[kind]
    with _phantoms(bundle) as (_, studies, results):
        options = {"dataset_dir": str(studies), "output_dir": str(results)}
        if kind == "train":
            split = {"train": _names(studies)[:1], "val": _names(studies)[1:2], "test": _names(studies)[2:]}
            split_file = studies.parent / "split.json"
            split_file.write_text(json.dumps(split), encoding="utf-8")
            options["split_file"] = str(split_file)
        _run(bundle, "-c", _PROPERTIES, kind, config, json.dumps(options))
    return "all there"


def _names(studies: Path) -> list[str]:
    """Folders of single phantoms, which some layouts keep in a folder of their own."""
    folders = [path for path in sorted(studies.iterdir()) if path.is_dir()]
    if len(folders) == 1 and any(path.is_dir() for path in folders[0].iterdir()):
        folders = [path for path in sorted(folders[0].iterdir()) if path.is_dir()]
    return [path.name for path in folders]


def _check_network(bundle: Path) -> str:
    for config in ("configs/train.json", "configs/inference.json"):
        arguments = ["--meta_file", "configs/metadata.json", "--config_file", config, "--device", "cpu"]
        _run(bundle, "-m", "monai.bundle", "verify_net_in_out", "network_def", *arguments)
    return "channels and type"


def _check_export(bundle: Path, kind: str, file: str) -> str:
    if not (bundle / file).is_file():
        return "not in the bundle"
    _run(bundle, "-c", _PARITY, kind, str(_RELATIVE), str(_ABSOLUTE))
    return f"within {_ABSOLUTE:g} + {_RELATIVE:g} of each value"


def _check_phantoms(bundle: Path) -> str:
    with _phantoms(bundle) as (described, studies, results):
        found = _evaluate(bundle, studies, results)
        for name, expected in described["metrics"].items():
            value = found.get(name)
            if value is None or not math.isfinite(value) or abs(value - expected) > described["tolerance"]:
                raise _Failed(f"{escaped(name)} {value}, expected {expected} to within {described['tolerance']}")
        return ", ".join(f"{name} {found[name]:.3f}" for name in described["metrics"])


def _evaluate(bundle: Path, studies: Path, results: Path) -> dict[str, float]:
    """Means over phantoms, by name, as the bundle's own ``evaluating`` gives them."""
    _run(
        bundle,
        *("-m", "monai.bundle", "run", "evaluating"),
        *("--config_file", "['configs/inference.json','configs/evaluate.yaml']"),
        *("--dataset_dir", str(studies), "--output_dir", str(results), "--split", "all"),
    )
    content = read_json(results / "metrics.json", "metrics")
    return {
        name: float(entry["mean"])
        for name, entry in content.items()
        if isinstance(entry, dict) and isinstance(entry.get("mean"), int | float)
    }


def record_phantoms(bundle: Path, arguments: list[str], names: list[str], tolerance: float) -> Path:
    """Write what :func:`check_bundle` holds a bundle to on phantoms, from what it gives now.

    Args:
        bundle: its folder.
        arguments: of ``python -m medseg_ext.phantoms``, behind the folder.
        names: the measures to record.
        tolerance: by how much they may differ elsewhere.

    Raises:
        InputError: the bundle does not run on them, or has no such measure.
    """
    bundle = bundle.resolve()
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(bundle, "-m", "medseg_ext.phantoms", str(Path(folder) / "studies"), *arguments)
            found = _evaluate(bundle, Path(folder) / "studies", Path(folder) / "results")
        except _Failed as error:
            raise InputError(bundle, f"what does not run ({error})", "a bundle that evaluates phantoms") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(bundle, f"no measure {', '.join(missing)}", f"some of {', '.join(sorted(found))}")
    content = {
        "arguments": arguments,
        "tolerance": tolerance,
        "metrics": {name: round(found[name], 4) for name in names},
    }
    return write_atomically(bundle / PHANTOMS, json.dumps(content, indent=2) + "\n")
