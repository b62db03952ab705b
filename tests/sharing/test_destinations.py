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
    "nothing": "",
    "below": "/masks",
    "macro": "%evil",
}


def passes(tmp_path: Path, **values: Any) -> bool:
    files = harmless()
    config = json.loads(files["configs/inference.json"]) | VALUES | values
    files["configs/inference.json"] = json.dumps(config).encode()
    return audit_bundle(write_folder(files, tmp_path)).passed


MODULES = ["$import datetime", "$import os", "$import torch", "$import medseg_ext"]


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
        "$@root + @below",
        "$@out + '_masks'",
        "$(@nothing or @out) + '/x'",
        "$os.path.abspath(@out) + '/x'",
        "$os.path.join(@nothing, @out) + '/x'",
        "$'./' + 'results'",
        "$medseg_ext.workflow.training_dir(@nothing) + '/x'",
        "$medseg_ext.workflow.served_weights(@root)",
        "$datetime.datetime.now().strftime(@out + '/%Y-%m-%d_%H%M%S.log')",
        "$@out + '/at:3'",
    ],
)
def test_below(destination: Any, tmp_path: Path) -> None:
    assert passes(tmp_path, imports=MODULES, handler=saver(destination))


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
        # what is put behind a text that may be empty may begin at the root
        "$@nothing + @below",
        "$'' + '/x'",
        "$@nothing + '' + '/x'",
        "$(@nothing + @nothing) + '/x'",
        "$(@out and @nothing) + '/x'",
        "$(@out or @nothing) + '/x'",
        "$(@nothing if @number else @out) + '/x'",
        '$f"{@nothing}/x"',
        "$str(@nothing) + '/x'",
        "$os.path.join(@root, @nothing) + '/x'",
        "$datetime.datetime.now().strftime('') + '/x'",
        "$datetime.datetime.now().strftime('%Z') + '/x'",
        "$datetime.datetime.now().strftime(@out + '/%Z.ssh')",
        # what stands in front makes another thing of it
        "$@root + 'ssh'",
        "$@root + os.path.join('./x')",
        "$'file' + '://home'",
        "$'C' + ':/x'",
        "$os.path.abspath(@root) + '_v2/models'",
        "$os.path.abspath('./') + 'x'",
        "$@root + @macro",
        "$@out + str({'/../x': 1})",
    ],
)
def test_elsewhere(destination: Any, tmp_path: Path) -> None:
    assert not passes(tmp_path, imports=MODULES, handler=saver(destination))


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
        ("$medseg_ext.training.TrainingState(@out, @net, [], copy=None)", True),
        ("$medseg_ext.training.TrainingState(@out, @net, [], copy=@out + '/model.pt')", True),
        ("$medseg_ext.training.TrainingState(@out, @net, [], copy=@evil)", False),
        ("$medseg_ext.tracking.TrackedRun(engine=@net, files=[@evil])", False),
        ("$np.array([1], copy=True)", True),
    ],
)
def test_in_expressions(expression: Any, passed: bool, tmp_path: Path) -> None:
    assert passes(tmp_path, imports=MODULES, net=None, made=expression) == passed


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


@pytest.mark.parametrize("key", ["files", "results", "checkpoints"])
@pytest.mark.parametrize(
    ("files", "passed"),
    [
        (None, True),
        ([], True),
        (["results/a.csv", "@out", "$@out + '/b.csv'"], True),
        ("$[@out + '/' + name for name in ('a.csv', 'b.csv')]", True),
        ("$[] if @number else [@out] + ['results']", True),
        (["$@nothing or @out + '/a.csv'"], True),
        ("@list", True),
        (["$@out + '/' + @initializer.FILE"], True),
        (["$@out + @initializer.report"], False),
        (["$@out + '/' + @out.FILE"], False),
        (["/etc/passwd"], False),
        ("$['/etc/passwd']", False),
        ("$[@evil]", False),
        ("$glob.glob('/etc/*')", False),
        ("$[@out + '/' + name for name in ('a.csv', '../x')]", False),
        ("$[@out + name + name for name in ['a', '.']]", False),
        ("$[name for name in @list]", False),
        ("$['results' for name in @list] + [@evil]", False),
    ],
)
def test_files_of_a_tracked_run(key: str, files: Any, passed: bool, tmp_path: Path) -> None:
    run = {"_target_": "medseg_ext.tracking.TrackedRun", key: files}
    initializer = {"_target_": "medseg_ext.transfer.WeightInitializer"}
    values = {"list": ["results/a.csv", "$@out + '/b.csv'"], "initializer": initializer}
    assert passes(tmp_path, tracked=run, **values) == passed


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ({"tracked::files::0": "/etc/passwd"}, False),
        ({"tracked::files::0": "results/a.csv"}, True),
        ({"handler::metric_details::0": "../x"}, False),
        ({"loader::reader::0": "os.system"}, False),
        ({"trainer::compile_kwargs::options": {"cpp.march": "native -wrapper sh"}}, False),
        ({"trainer::compile_kwargs::options::cpp.march": "native -wrapper sh"}, False),
        ({"trainer::compile_kwargs::mode": "default"}, True),
        ({"state::copy": "/home/victim/x"}, False),
    ],
)
def test_one_item_by_its_id(values: dict[str, Any], passed: bool, tmp_path: Path) -> None:
    components = {
        "tracked": {"_target_": "medseg_ext.tracking.TrackedRun"},
        "state": {"_target_": "medseg_ext.training.TrainingState"},
    }
    assert passes(tmp_path, **components, **values) == passed


def test_common_names_are_held_where_the_class_is(tmp_path: Path) -> None:
    assert passes(tmp_path, copy="/data", files=["/data/a.nii.gz"], results="/data")
    (tmp_path / "victim" / "configs" / "more.yaml").write_text("a: {_target_: medseg_ext.training.TrainingState}\n")
    assert not audit_bundle(tmp_path / "victim").passed


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (None, True),
        ({"input_names": ["image"], "opset_version": 18, "dynamic_axes": {"image": {"0": "batch"}}}, True),
        ("@plain", True),
        ({"report": True}, False),
        ({"artifacts_dir": "results"}, False),
        ({"opset_version": "$18"}, False),
        ("@elsewhere", False),
        ("$dict(report=True)", False),
        ("%elsewhere", False),
    ],
)
def test_what_is_exported(arguments: Any, passed: bool, tmp_path: Path) -> None:
    values = {"plain": {"opset_version": 18}, "elsewhere": {"artifacts_dir": "/home/victim"}}
    assert passes(tmp_path, converter_kwargs=arguments, **values) == passed


def test_a_first_part_is_judged_over_all_files(tmp_path: Path) -> None:
    assert passes(tmp_path, handler=saver("$@root + '/results'"))
    (tmp_path / "victim" / "configs" / "site.yaml").write_text("root: lab\n")
    assert audit_bundle(tmp_path / "victim").passed
    (tmp_path / "victim" / "configs" / "site.yaml").write_text('root: ""\n')
    assert not audit_bundle(tmp_path / "victim").passed


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


def test_imports_among_what_is_run(tmp_path: Path) -> None:
    """As multi_gpu_train.json of the model zoo's bundles has them."""
    assert passes(tmp_path, initialize=["$import torch.distributed as dist", "$dist.is_initialized()"])


@pytest.mark.parametrize(
    "values",
    [
        {"tool": "$import os"},
        {"handler": {"_target_": "DatasetFunc", "data": "$import os", "func": "$lambda tool: tool.remove('x')"}},
        {"imports": ["$import os"], "made": "$@imports::0.remove('x')"},
        {"initialize": ["$import os", "$@initialize::0.remove('x')"]},
        {"initialize": ["$import os"], "made": "$@initialize[0].remove('x')"},
        {"initialize": ["$import os"], "made": {"_target_": "DatasetFunc", "data": "%initialize", "func": "$len"}},
        {"run": {"_target_": "DatasetFunc", "data": "$import os", "func": "$lambda tool: tool.remove('x')"}},
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
