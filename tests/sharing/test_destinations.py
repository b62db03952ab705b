"""Where a config may have things written to: below where it is started, or below what the user says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attacks import harmless, write_folder

from medseg_ext.sharing.audit import audit_bundle

VALUES = {
    "root": ".",
    "out": "$@root + '/results'",
    "date": "$@out + '/run'",
    "number": 3,
    "evil": "/home/victim",
    "dot": ".",
    "up": "$@root + '/../..'",
}


def passes(tmp_path: Path, **values: Any) -> bool:
    files = harmless()
    config = json.loads(files["configs/inference.json"]) | VALUES | values
    files["configs/inference.json"] = json.dumps(config).encode()
    return audit_bundle(write_folder(files, tmp_path)).passed


def saver(destination: Any) -> dict[str, Any]:
    return {"_target_": "MetricsSaver", "save_dir": destination}


@pytest.mark.parametrize(
    "destination",
    [
        ".",
        "",
        "results",
        "./results",
        "a/b.c/d",
        "@out",
        "@date",
        None,
        "$@out",
        "$@root + '/eval'",
        "$@root + '/eval_' + str(@number)",
        '$f"{@out}/fold_{@number}"',
        "$os.path.join(@root, 'models')",
        "$os.path.abspath(@out)",
        "$@out if @number else @root",
        "$@out or 'results'",
        "$@out + '/' + os.path.join('a', 'b')",
    ],
)
def test_below(destination: Any, tmp_path: Path) -> None:
    assert passes(tmp_path, handler=saver(destination))


@pytest.mark.parametrize(
    "destination",
    [
        "/tmp",
        "..",
        "../x",
        "a/../../b",
        "~/x",
        "~",
        "C:/x",
        "C:\\x",
        "a\\b",
        "file:///x",
        ".ssh",
        "a/.git/hooks",
        "%out",
        "@evil",
        "@up",
        "@nowhere",
        "$@evil",
        "$@evil + '/x'",
        "$@root + '/..'",
        "$@root + @dot + @dot",
        "$'.' + '.'",
        '$f"{@evil}/x"',
        '$f"{@out}/{@evil}/../x"',
        '$f"{@out}{@dot}./x"',
        "$'run_' + @root",
        "$os.path.join(@root, '/etc')",
        "$os.path.join(@root, @evil)",
        "$os.path.join('..', 'x')",
        "$os.path.dirname(@out)",
        "$os.path.expanduser('~')",
        "$'/' + @out",
        "$@out or '/etc'",
        "$@out if @number else @evil",
        "$'x'.replace('x', '/etc')",
        "$[@out][0]",
        "$chr(47)",
        ["results"],
    ],
)
def test_elsewhere(destination: Any, tmp_path: Path) -> None:
    assert not passes(tmp_path, handler=saver(destination))


@pytest.mark.parametrize(
    ("expression", "passed"),
    [
        ("$monai.handlers.TensorBoardHandler(None, @out)", True),
        ("$monai.handlers.TensorBoardHandler(log_dir=@out)", True),
        ("$monai.handlers.TensorBoardHandler(None, @evil)", False),
        ("$monai.handlers.TensorBoardHandler(log_dir='/etc')", False),
        ("$monai.handlers.TensorBoardHandler(*[None, @evil])", False),
        ("$list(map(monai.handlers.TensorBoardHandler, [None], [@evil]))", False),
        ("$[make(None, @evil) for make in [monai.handlers.TensorBoardHandler]]", False),
        ("$os.makedirs(@out, exist_ok=True)", True),
        ("$os.makedirs(@out + '/masks')", True),
        ("$os.makedirs(name='/home/victim/x')", False),
        ("$os.makedirs(@evil)", False),
        ("$[make(@evil) for make in [os.makedirs]]", False),
        ({"_target_": "os.makedirs", "name": "results"}, False),  # a config merged over it names another
        ("$@out.replace('a', 'b')", True),
        ("$@out.replace('/etc/x')", False),
        ("$[r('/etc/x') for r in [@out.replace]]", False),
        # powers of which the result is not to be written down
        ("$2 ** 10", True),
        ("$2 ** (@number - 1)", True),
        ("$9 ** 9 ** 9", False),
        ("$(9 ** 60) ** 60", False),
        ("$1 << 99", False),
    ],
)
def test_in_expressions(expression: Any, passed: bool, tmp_path: Path) -> None:
    assert passes(tmp_path, made=expression) == passed


@pytest.mark.parametrize(
    ("details", "passed"),
    [
        (None, True),
        ("val_mean_dice", True),
        (["val_mean_dice", "val_hausdorff 95"], True),
        ("@details", True),
        ("*", False),  # whatever a metric is called
        ("../../x", False),
        (["val_mean_dice", "/home/victim/x"], False),
        ("$['a']", False),
    ],
)
def test_files_named_by_metrics(details: Any, passed: bool, tmp_path: Path) -> None:
    assert passes(tmp_path, handler=saver("@out") | {"metric_details": details}, details=["val_mean_dice"]) == passed


def test_a_reference_that_depends_on_its_place(tmp_path: Path) -> None:
    assert not passes(tmp_path, handler=saver("@::dir") | {"dir": "/etc"}, dir="results")


@pytest.mark.parametrize(
    ("file", "passed"),
    [
        ("configs/train.yaml", True),
        ("manifest.json", False),
        ("environment.yml", False),
        ("configs/environment.yml", False),
        ("docs/kernels/python3/kernel.json", False),
        ("docs/jupyter_server_config.json", False),
        ("package.json", False),
        ("configs/jupyter_config.json", False),
        ("configs/.hidden.yaml", False),
        (".vscode/settings.json", False),
        ("docs/phantom_metrics.json", True),
    ],
)
def test_documents_of_other_programs(file: str, passed: bool, tmp_path: Path) -> None:
    assert audit_bundle(write_folder(harmless() | {file: b"{}"}, tmp_path)).passed == passed


@pytest.mark.parametrize(
    "values",
    [
        {"tool": "$import os"},
        {"handler": {"_target_": "DatasetFunc", "data": "$import os", "func": "$lambda tool: tool.remove('x')"}},
        {"imports": ["$import os"], "made": "$@imports::0.remove('x')"},
    ],
)
def test_modules_are_no_values(values: dict[str, Any], tmp_path: Path) -> None:
    assert not passes(tmp_path, **values)


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (None, True),
        ({"mode": "reduce-overhead", "fullgraph": True}, True),
        ("@plain", True),
        ({"mode": "elsewhere"}, False),
        ({"mode": "$'default'"}, False),
        ({"options": {"cpp.march": "native -wrapper sh"}}, False),
        ({"backend": "inductor"}, False),
        ("@speed", False),
        ("$@speed", False),
        ("$dict(mode='default')", False),
        ("%speed", False),
    ],
)
def test_what_is_compiled(arguments: Any, passed: bool, tmp_path: Path) -> None:
    trainer = {"_target_": "SupervisedTrainer", "compile": True, "compile_kwargs": arguments}
    values = {"plain": {"dynamic": False}, "speed": {"options": {"cpp.march": "native -wrapper sh"}}}
    assert passes(tmp_path, trainer=trainer, **values) == passed
