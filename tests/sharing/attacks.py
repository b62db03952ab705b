"""Bundles that are up to something, one trick each, written as the tests run: none of them is ever executed.

Each attack is a function that is given the files of a harmless bundle, by path, and returns those of the hostile one;
or writes an archive by itself. ``MARK`` is what a payload would create if it ran.
"""

from __future__ import annotations

import io
import json
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MARK = "attack_was_executed"
COMMAND = f"touch {MARK}"
NAME = "victim"

Files = dict[str, bytes]
ATTACKS: dict[str, Attack] = {}


@dataclass(frozen=True)
class Attack:
    """One trick.

    Args:
        name: what it is called. rule: the rule of the finding that has to tell of it.
        write: writes it into a folder and returns the path of the bundle.
    """

    name: str
    rule: str
    write: Callable[[Path], Path]


def harmless() -> Files:
    """The smallest bundle that passes."""
    weights = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, weights)
    config = {
        "imports": ["$import os", "$import torch"],
        "device": "$torch.device('cpu')",
        "network_def": {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1},
    }
    return {
        "LICENSE": b"Apache License\n",
        "configs/metadata.json": b'{"version": "0.1.0", "changelog": {"0.1.0": "first"}}\n',
        "configs/inference.json": json.dumps(config, indent=1).encode(),
        "configs/logging.conf": LOGGING.encode(),
        "docs/README.md": b"# A bundle\n",
        "models/model.pt": weights.getvalue(),
    }


LOGGING = """[loggers]
keys=root
[handlers]
keys=stderr
[formatters]
keys=short
[logger_root]
level=INFO
handlers=stderr
[handler_stderr]
class=StreamHandler
formatter=short
args=(sys.stderr,)
[formatter_short]
format=%(asctime)s %(message)s
"""


def write_folder(files: Files, folder: Path) -> Path:
    """Write files below ``folder/victim``."""
    root = folder / NAME
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def write_archive(files: Files, folder: Path) -> Path:
    """Write files into ``folder/victim.zip``, in the folder ``victim``."""
    path = folder / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{NAME}/{name}", content)
    return path


def attack(rule: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Register a function that writes a whole bundle."""

    def register(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        name = write.__name__.removeprefix("_")
        assert name not in ATTACKS, name
        ATTACKS[name] = Attack(name, rule, write)
        return write

    return register


def with_files(name: str, rule: str, **changes: bytes | str) -> None:
    """Register a harmless bundle with files added or replaced; ``__`` in a keyword stands for ``/``."""
    files = {path: content if isinstance(content, bytes) else content.encode() for path, content in changes.items()}
    assert name not in ATTACKS, name
    ATTACKS[name] = Attack(name, rule, lambda folder: write_folder(harmless() | files, folder))


def with_config(name: str, rule: str, **values: Any) -> None:
    """Register a harmless bundle whose inference.json has further ids."""

    def write(folder: Path) -> Path:
        files = harmless()
        config = json.loads(files["configs/inference.json"]) | values
        return write_folder(files | {"configs/inference.json": json.dumps(config, indent=1).encode()}, folder)

    assert name not in ATTACKS, name
    ATTACKS[name] = Attack(name, rule, write)


def with_expression(name: str, expression: str, *imports: str, **values: Any) -> None:
    """Register a harmless bundle with one expression, and what it needs."""
    config = {"imports": ["$import os", "$import torch", *imports]} if imports else {}
    with_config(name, "expression", **config, **values, evil=f"${expression}")


# targets

with_config("target_os_system", "target", evil={"_target_": "os.system", "command": COMMAND})
with_config("target_torch_os_system", "target", evil={"_target_": "torch.os.system", "command": COMMAND})
with_config("target_torch_hub_os_system", "target", evil={"_target_": "torch.hub.os.system", "command": COMMAND})
with_config("target_torch_load", "target", evil={"_target_": "torch.load", "f": "models/x.pt", "weights_only": True})
with_config("target_torch_hub_load", "target", evil={"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"})
with_config("target_numpy_load", "target", evil={"_target_": "numpy.load", "file": "x.npy"})
with_config("target_bundle_run", "target", evil={"_target_": "monai.bundle.run", "config_file": "other.json"})
with_config("target_bundle_run_bare", "target", evil={"_target_": "run", "config_file": "other.json"})
with_config("target_run_cmd", "target", evil={"_target_": "monai.utils.misc.run_cmd", "cmd_list": COMMAND.split()})
with_config("target_download", "target", evil={"_target_": "monai.apps.download_url", "url": "http://localhost/x"})
with_config("target_exec", "target", evil={"_target_": "builtins.exec", "source": f"open('{MARK}', 'w')"})
with_config("target_eval_bare", "target", evil={"_target_": "eval"})
with_config("target_partial", "target", evil={"_target_": "functools.partial", "func": "$print"})
with_config("target_optional_import", "target", evil={"_target_": "monai.utils.optional_import", "module": "os"})
with_config(
    "target_pickle", "target", evil={"_target_": "monai.data.pickle_operations", "data": {}, "is_encode": False}
)
with_config("target_torchvision_by_text", "target", evil={"_target_": "TorchVisiond", "name": "Lambda", "keys": "x"})
with_config("target_perceptual_loss", "target", evil={"_target_": "monai.losses.PerceptualLoss", "spatial_dims": 2})
with_config("target_cpp_extension", "target", evil={"_target_": "torch.utils.cpp_extension.load", "name": "x"})
with_config("target_prefix_only", "target", evil={"_target_": "monai_evil.Network"})
with_config("target_method_of_class", "target", evil={"_target_": "torch.nn.Module.__init_subclass__"})
with_config("target_by_reference", "target", name_of="os.system", evil={"_target_": "@name_of", "command": COMMAND})
with_config("target_by_macro", "target", name_of="os.system", evil={"_target_": "%name_of", "command": COMMAND})
with_config("target_by_expression", "target", evil={"_target_": "$'os.sys' + 'tem'", "command": COMMAND})
with_config("target_by_path", "target", **{"network_def::_target_": "os.system", "network_def::command": COMMAND})
with_config("target_by_old_path", "target", **{"network_def#_target_": "os.system"})
with_config("target_nested_in_list", "target", evil={"_target_": "Compose", "transforms": [[{"_target_": "os.abort"}]]})
with_config("target_is_a_number", "target", evil={"_target_": 1})
with_config("target_disabled", "target", evil={"_target_": "os.abort", "_disabled_": "@unknown"})
with_files(
    "target_in_metadata",
    "target",
    **{"configs/metadata.json": '{"evil": {"_target_": "os.abort"}, "version": "0.1.0"}'},
)
with_files("target_in_list_config", "target", **{"configs/train.json": '[{"_target_": "os.abort"}]'})
with_files("target_in_yaml", "target", **{"configs/train.yaml": "evil:\n  _target_: os.abort\n"})
with_files("target_in_upper_case_suffix", "target", **{"configs/train.YAML": "evil: {_target_: os.abort}\n"})
with_files("target_in_docs", "target", **{"docs/more.json": '{"evil": {"_target_": "os.abort"}}'})
with_files("target_escaped", "target", **{"configs/train.json": '{"evil": {"\\u005ftarget_": "os.abort"}}'})

# components that look up what they are told in text

with_config(
    "reader_by_text",
    "argument",
    evil={"_target_": "LoadImaged", "keys": "x", "reader": "os.system", "command": COMMAND},
)
with_config("writer_by_text", "argument", evil={"_target_": "SaveImaged", "keys": "x", "writer": "os.system"})
with_config("merger_by_text", "argument", evil={"_target_": "PatchInferer", "merger_cls": "os.system"})
with_config(
    "reader_by_reference", "argument", name_of="os.system", evil={"_target_": "LoadImage", "reader": "@name_of"}
)
with_config("reader_by_expression", "argument", evil={"_target_": "LoadImage", "reader": "$'os.' + 'system'"})
with_config("reader_by_path", "argument", **{"preprocessing::transforms::0::reader": "os.system"})
with_files("reader_in_overlay", "argument", **{"configs/overlay.yaml": "+evil:\n  reader: os.system\n"})
with_config("reader_in_list", "argument", evil={"_target_": "LoadImage", "reader": ["NibabelReader", "os.system"]})
TEXT = {"_target_": "os.path.basename", "p": "os.system"}
with_config("reader_by_component", "argument", evil={"_target_": "LoadImage", "reader": TEXT, "command": COMMAND})
with_config("reader_by_referred_component", "argument", text=TEXT, evil={"_target_": "LoadImage", "reader": "@text"})
with_config(
    "reader_behind_reader",
    "argument",
    evil={"_target_": "LoadImage", "reader": "$monai.data.ITKReader() and os.path.basename('os.system')"},
)
with_config(
    "reader_made_by_another_config",
    "argument",
    **{"evil": {"_target_": "LoadImage", "reader": {"p": "os.system"}}, "evil::reader::_target_": "os.path.basename"},
)
with_config(
    "filename_by_component",
    "argument",
    evil={"_target_": "LogfileHandler", "filename": {"_target_": "os.path.basename", "p": ".bashrc"}},
)
with_config("weights_from_elsewhere", "argument", evil={"_target_": "UNet", "source": "somebody/weights"})
with_config("allow_pickle", "argument", evil={"_target_": "NumpyReader", "allow_pickle": True})
with_config("pretrained", "argument", evil={"_target_": "DenseNet121", "pretrained": True})
with_config("pretrained_by_default", "argument", evil={"_target_": "MILModel", "num_classes": 2})
with_config("debugger", "argument", evil={"_target_": "Compose", "_mode_": "debug"})
with_config("breakpoint", "argument", evil={"_target_": "Compose", "_debug_": True})
with_config(
    "partial_of_reader", "argument", evil={"_target_": "LoadImage", "_mode_": "callable"}, run="$@evil('os.system')"
)
with_config("merged_target", "target", **{"+network_def": {"_target_": "LoadImaged"}})
with_config(
    "log_into_profile", "argument", evil={"_target_": "LogfileHandler", "output_dir": "/", "filename": ".bashrc"}
)
with_config("other_logging_file", "argument", logging_file="docs/README.md")
with_config("tracking_elsewhere", "argument", tracking_uri="https://localhost/collect")

# expressions

with_expression("dunder_import", f"__import__('os').system('{COMMAND}')")
with_expression("torch_os", f"torch.os.system('{COMMAND}')")
with_expression("torch_hub_os", f"torch.hub.os.system('{COMMAND}')")
with_expression("alias_of_module", f"t.os.system('{COMMAND}')", "$import torch as t")
with_expression("monai_bundle_run", "monai.bundle.run(config_file='other.json')")
with_expression("torch_load", "torch.load('models/other.pt', weights_only=False)")
with_expression("numpy_load", "np.load('x.npy', allow_pickle=True)")
with_expression("os_system", f"os.system('{COMMAND}')")
with_expression("open_file", f"open('{MARK}', 'w')")
with_expression("getattr_chain", f"getattr(os, 'sys' + 'tem')('{COMMAND}')")
with_expression("subclasses", "().__class__.__base__.__subclasses__()")
with_expression("globals_of_function", "monai.handlers.from_engine.__globals__")
with_expression("frame_of_generator", "(x for x in [1]).gi_frame")
with_expression("format_walk", "'{0.__class__.__mro__}'.format(torch.device)")
with_expression("f_string_walk", "f'{torch.os.environ}'")
with_expression("f_string_format_spec", "f'{1:{torch.os.getcwd()}}'")
with_expression("lambda_body", f"(lambda x: torch.os.system(x))('{COMMAND}')")
with_expression("lambda_default", f"(lambda x=torch.os.system('{COMMAND}'): x)()")
with_expression("comprehension_body", f"[torch.os.system(c) for c in ['{COMMAND}']]")
with_expression("comprehension_condition", f"[c for c in [1] if torch.os.system('{COMMAND}')]")
with_expression("comprehension_shadow", "[str(0) for str in [torch.device]]")
with_expression("walrus", "(x := torch.os)")
with_expression("map_of_function", f"list(map(torch.os.system, ['{COMMAND}']))")
with_expression("sorted_key", "sorted(['x'], key=os.system)")
with_expression("subscript_of_dict", "torch.__dict__['os']")
with_expression("full_width_letters", f"torch.ｏｓ.system('{COMMAND}')")
with_expression("quotes_of_reference", "'@a' + '@b'", a="x", b="y")
with_expression("all_references", "@::0 if @ else None")
with_expression("unpacked_arguments", "monai.transforms.LoadImaged(**{'keys': 'x', 'rea' + 'der': 'os.system'})")
with_expression("reader_by_position", "monai.transforms.LoadImage('os.system')")
with_expression("reader_by_keyword", "monai.transforms.LoadImage(reader='os.system')")
with_expression("reader_as_value", "list(map(monai.transforms.LoadImage, ['os.system']))")
with_expression("write_by_method", f"torch.zeros(1).numpy().tofile('{MARK}')")
with_expression("eval_of_table", "@table.eval('1')", table=1)
with_expression("all_of_environment", "dict(os.environ)")
with_expression("secret_of_environment", "os.environ['AWS_SECRET_ACCESS_KEY']")
with_expression("print_to_file", "print('x', file=@stream)", stream=1)
with_expression("rendezvous_elsewhere", "torch.distributed.init_process_group('gloo', 'tcp://localhost:1')")
with_expression("setattr_of_module", "setattr(torch, 'load', print)")
with_expression("huge_power", "9 ** 9 ** 99")
with_expression("await_expression", "(await x)")
with_expression("nested_too_deeply", "(" * 400 + "1" + ")" * 400)
with_expression("no_expression", "x = 1")
with_expression("module_as_value", "torch")
with_expression("imported_code", "1", "$import scripts.evil")
with_expression("imported_subprocess", f"run('{COMMAND}')", "$from subprocess import run")
with_expression("imported_as_builtins", "1", "$import os as __builtins__")
with_expression("imported_as_len", "len('x')", "$from os import makedirs as len")
with_expression("second_import", "1", f"$import os; os.system('{COMMAND}')")
with_config("expression_in_key_of_list", "expression", evil=[{"x": ["$__import__('os')"]}])
with_config("required", "expression", evil={"_target_": "Compose", "_requires_": ["$__import__('os').abort()"]})
with_config(
    "disabled_expression", "expression", evil={"_target_": "Compose", "_disabled_": "$__import__('os').abort()"}
)
with_config("described_expression", "expression", evil={"_desc_": "$__import__('os').abort()"})
with_config("initialize", "expression", initialize=[f"$os.system('{COMMAND}')"])
with_config("reference_to_module", "expression", evil=f"$@imports::0.system('{COMMAND}')")
with_config("plain_reference_to_module", "reference", module="@imports::0", evil="$@module.name")
with_config("macro_of_imports", "reference", modules="%imports", evil="$@modules::0.name")
with_config("macro_of_all", "reference", evil="%")
with_config("macro_of_file", "macro", evil="%/tmp/other.json::net")
with_config("macro_of_upper_file", "macro", evil="%../OTHER.YAML")
with_config("relative_id_in_odd_key", "reference", **{"x')+evil('": {"a": 1, "b": "$@::a"}})
with_config("relative_id_outside", "reference", a={"b": "@::::::x"})
with_config("relative_reference_to_module", "expression", imports=["$import os", "$import torch", "$@::1.os.abort()"])
with_config("macro_of_target", "target", evil={"_target_": "%::x", "x": "os.system"})

# texts that are read in two ways

with_files("json_key_twice", "config", **{"configs/train.json": '{"a": {"_target_": "UNet", "_target_": "UNet"}}'})
with_files("json_with_mark", "config", **{"configs/train.json": b'\xef\xbb\xbf{"a": 1}'})
with_files("json_utf16", "config", **{"configs/train.json": '{"a": 1}'.encode("utf-16")})
with_files("json_latin1", "config", **{"configs/train.json": '{"a": "é"}'.encode("latin-1")})
with_files("json_too_deep", "config", **{"configs/train.json": "[" * 100_000 + "]" * 100_000})
with_files("json_with_tail", "config", **{"configs/train.json": '{"a": 1} {"b": 2}'})
with_files("yaml_tag", "config", **{"configs/train.yaml": f"a: !!python/object/apply:os.system ['{COMMAND}']\n"})
with_files("yaml_binary", "config", **{"configs/train.yaml": "a: !!binary aGVsbG8=\n"})
with_files("yaml_key_twice", "config", **{"configs/train.yaml": "a: 1\na: 2\n"})
with_files(
    "yaml_laughs",
    "config",
    **{
        "configs/train.yaml": "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    },
)
with_files("yaml_two_documents", "config", **{"configs/train.yaml": "a: 1\n---\na: 2\n"})
with_files("yaml_too_deep", "config", **{"configs/train.yaml": "[" * 5000 + "]" * 5000})
with_files("yaml_merge", "config", **{"configs/train.yaml": "a: &a {_target_: UNet}\nb:\n  <<: *a\n"})
with_files("config_too_large", "config", **{"configs/train.json": b'{"a": "' + b"x" * (9 * 2**20) + b'"}'})
with_files(
    "large_files", "fetch", **{"large_files.yml": "large_files:\n- path: models/a.pt\n  url: http://localhost/\n"}
)

# logging

with_files("logging_class", "logging", **{"configs/logging.conf": LOGGING.replace("StreamHandler", "eval")})
with_files(
    "logging_call",
    "logging",
    **{"configs/logging.conf": LOGGING.replace("(sys.stderr,)", f"(__import__('os').system('{COMMAND}'),)")},
)
with_files(
    "logging_socket",
    "logging",
    **{
        "configs/logging.conf": LOGGING.replace("StreamHandler", "handlers.SocketHandler").replace(
            "sys.stderr,", "'x',1"
        )
    },
)
with_files(
    "logging_file",
    "logging",
    **{"configs/logging.conf": LOGGING.replace("StreamHandler", "FileHandler").replace("sys.stderr,", "'.bashrc',")},
)
with_files(
    "logging_kwargs", "logging", **{"configs/logging.conf": LOGGING + "[handler_x]\nkwargs={'stream': print('x')}\n"}
)
with_files(
    "logging_interpolation",
    "logging",
    **{"configs/logging.conf": LOGGING.replace("class=StreamHandler", "evil=eval\nclass=%(evil)s")},
)
with_files("logging_default", "logging", **{"configs/logging.conf": "[DEFAULT]\nclass=eval\n" + LOGGING})
with_files("logging_formatter", "logging", **{"configs/logging.conf": LOGGING + "class=os.system\n"})

# code

with_files("script", "code", **{"scripts/__init__.py": "", "scripts/net.py": "import os\n"})
with_files("empty_script", "code", **{"scripts/__init__.py": ""})
with_files("sitecustomize", "code", **{"sitecustomize.py": "import os\n"})
with_files("path_file", "code", **{"evil.pth": f"import os; os.system('{COMMAND}')\n"})
with_files("compiled", "code", **{"configs/x.pyc": b"\0\0\0\0"})
with_files("shared_library", "code", **{"models/x.so": b"\x7fELF"})
with_files("shell_script", "code", **{"docs/install.sh": f"{COMMAND}\n"})
with_files("script_without_suffix", "code", LICENSE=f"#!/bin/sh\n{COMMAND}\n")
with_files("notebook", "code", **{"docs/tour.ipynb": "{}"})
with_files("page_with_script", "code", **{"docs/card.html": "<script>fetch('/')</script>"})
with_files("vendored_package", "code", **{"medseg_ext/__init__.py": "import os\n"})
with_files("wheel", "code", **{"wheels/medseg_ext-0.1.0-py3-none-any.whl": b"PK\5\6" + b"\0" * 18})
with_files("requirement_by_address", "requirement", **{"requirements.txt": "monai @ https://localhost/monai.zip\n"})
with_files("requirement_option", "requirement", **{"requirements.txt": "--index-url https://localhost/\nmonai\n"})
with_files("unknown_kind", "kind", **{"models/plan.engine": b"ftrt"})
with_files("nested_archive", "kind", **{"models/more.zip": b"PK\5\6" + b"\0" * 18})
with_files("no_picture", "kind", **{"docs/picture.png": b"GIF89a"})


@attack("code")
def vendored_package_with_one_change(folder: Path) -> Path:
    """The package as it is, but for one line."""
    import medseg_ext

    root = Path(medseg_ext.__file__).parent
    files = {f"medseg_ext/{p.relative_to(root).as_posix()}": p.read_bytes() for p in root.rglob("*.[pt][yx]*")}
    files = {path: content for path, content in files.items() if not path.endswith(".pyc")}
    files["medseg_ext/errors.py"] += b"\nimport os\n"
    return write_folder(harmless() | files, folder)


# weights


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (COMMAND,)


def saved(value: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with these entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target:
        for path, content in entries.items():
            target.writestr(path, content)
    return stream.getvalue()


with_files("pickle_as_weights", "weights", **{"models/model.pt": pickle.dumps(Evil(), protocol=2)})
with_files("pickle_in_weights", "weights", **{"models/model.pt": saved({"weight": Evil()})})
with_files("pickle_protocol_4", "weights", **{"models/model.pt": saved({"weight": Evil()}, pickle_protocol=4)})
with_files(
    "legacy_weights",
    "weights",
    **{"models/model.pt": saved({"w": torch.zeros(1)}, _use_new_zipfile_serialization=False)},
)
with_files("module_as_weights", "weights", **{"models/model.pt": saved(torch.nn.Linear(1, 1))})
with_files(
    "pickle_behind_weights",
    "weights",
    **{
        "models/model.pt": archive(
            {"model/data.pkl": pickle.dumps({}, 2) + pickle.dumps(Evil(), 2), "model/version": b"3\n"}
        )
    },
)
with_files(
    "two_pickles_of_one_name",
    "weights",
    **{"models/model.pt": archive({"a/data.pkl": pickle.dumps({}, 2), "b/data.pkl": pickle.dumps(Evil(), 2)})},
)
with_files("damaged_weights", "weights", **{"models/model.pt": saved({"w": torch.zeros(100)})[:-40]})
with_files("no_weights", "weights", **{"models/model.pt": b""})
with_files("safetensors_header", "weights", **{"models/m.safetensors": struct.pack("<Q", 2**40) + b"{}"})
with_files(
    "safetensors_overlap",
    "weights",
    **{
        "models/m.safetensors": struct.pack(
            "<Q", len(SAFE := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}')
        )
        + SAFE
        + b"\0" * 4
    },
)
with_files("pickle_as_safetensors", "weights", **{"models/m.safetensors": pickle.dumps(Evil(), protocol=2)})
with_files("no_onnx", "weights", **{"models/model.onnx": b"\x08\x07"})


@attack("weights")
def onnx_outside(folder: Path) -> Path:
    """A tensor of which the data lie in another file of the machine."""
    import onnx
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    return write_folder(harmless() | {"models/model.onnx": model.SerializeToString()}, folder)


@attack("weights")
def onnx_with_a_foreign_operator(folder: Path) -> Path:
    """An operator that some library would have to bring."""
    from onnx import helper

    node = helper.make_node("Run", ["x"], ["y"], domain="evil")
    model = helper.make_model(helper.make_graph([node], "g", [], []), opset_imports=[helper.make_opsetid("evil", 1)])
    return write_folder(harmless() | {"models/model.onnx": model.SerializeToString()}, folder)


class _Saves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "attack_was_executed")
        return x


@attack("torchscript")
def torchscript_that_writes(folder: Path) -> Path:
    """TorchScript has an operator that writes files."""
    script = torch.jit.script(_Saves())
    stream = io.BytesIO()
    torch.jit.save(script, stream)
    return write_folder(harmless() | {"models/model.ts": stream.getvalue()}, folder)


@attack("target")
def torchscript_with_a_config(folder: Path) -> Path:
    """MONAI stores configs in TorchScript, and reads them from there."""
    stream = io.BytesIO()
    extra = {"inference.json": b'{"network_def": {"_target_": "os.abort"}}'}
    torch.jit.save(torch.jit.script(torch.nn.Identity()), stream, _extra_files=extra)
    return write_folder(harmless() | {"models/model.ts": stream.getvalue()}, folder)


@attack("torchscript")
def torchscript_with_a_pickle(folder: Path) -> Path:
    """The pickles of the archive import what they like."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), stream)
    with zipfile.ZipFile(stream) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    entries = {k: pickle.dumps(Evil(), 2) if k.endswith("/data.pkl") else v for k, v in entries.items()}
    return write_folder(harmless() | {"models/model.ts": archive(entries)}, folder)


@attack("weights")
def torchscript_named_pt(folder: Path) -> Path:
    """``torch.load`` may hand an archive with code to ``torch.jit.load``."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), stream)
    return write_folder(harmless() | {"models/model.pt": stream.getvalue()}, folder)


# folders


@attack("link")
def link_outside(folder: Path) -> Path:
    """A link to a file of the machine."""
    root = write_folder(harmless(), folder)
    (root / "docs" / "notes.txt").symlink_to("/etc/passwd")
    return root


@attack("link")
def linked_folder(folder: Path) -> Path:
    """A link to a folder of the machine."""
    root = write_folder(harmless(), folder)
    (root / "data").symlink_to("/etc", target_is_directory=True)
    return root


with_files("hidden_file", "path", **{".env": "x"})
with_files("git_folder", "path", **{".git/config": f"[core]\nfsmonitor = {COMMAND}\n"})
with_files("device_name", "path", **{"docs/NUL.txt": "x"})
with_files("device_without_suffix", "path", **{"docs/con": "x"})
with_files("stream_of_windows", "path", **{"docs/a.txt:evil.exe": "x"})
with_files("backslash", "path", **{"docs\\..\\..\\evil.txt": "x"})
with_files("name_with_a_line_break", "path", **{"docs/a\nb.txt": "x"})
with_files("name_that_turns_around", "path", **{"docs/a\u202etxt.md": "x"})
with_files("name_with_a_point_at_the_end", "path", **{"docs/readme.": "x"})
with_files("names_but_for_case", "name", **{"docs/readme.md": "x"})
with_files("names_but_for_composition", "name", **{"docs/\u00e9.md": "x", "docs/e\u0301.md": "x"})

# archives


def _archive_attack(name: str, rule: str, *entries: tuple[str, bytes]) -> None:
    def write(folder: Path) -> Path:
        path = write_archive(harmless(), folder)
        with zipfile.ZipFile(path, "a") as target:
            for entry, content in entries:
                target.writestr(entry, content)
        return path

    ATTACKS[name] = Attack(name, rule, write)


_archive_attack("zip_traversal", "path", (f"{NAME}/../../evil.txt", b"x"))
_archive_attack("zip_absolute", "path", ("/tmp/evil.txt", b"x"))
_archive_attack("zip_drive", "path", ("C:/evil.txt", b"x"))
_archive_attack("zip_second_root", "path", ("other/evil.txt", b"x"))
_archive_attack("zip_file_beside", "path", ("evil.txt", b"x"))
_archive_attack("zip_case", "name", (f"{NAME}/Configs/other.json", b"{}"))
_archive_attack("zip_file_is_folder", "name", (f"{NAME}/LICENSE/x.txt", b"x"))


@attack("name")
def zip_name_twice(folder: Path) -> Path:
    """Two files of one name: which one counts depends on the reader."""
    path = write_archive(harmless(), folder)
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(f"{NAME}/configs/inference.json", b"{}")
    return path


@attack("link")
def zip_link(folder: Path) -> Path:
    """A link inside the archive."""
    path = write_archive(harmless(), folder)
    entry = zipfile.ZipInfo(f"{NAME}/docs/notes.txt")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(entry, "/etc/passwd")
    return path


@attack("size")
def zip_bomb(folder: Path) -> Path:
    """64 MB of zeros in 64 KB."""
    path = write_archive(harmless(), folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr(f"{NAME}/docs/big.txt", b"\0" * (64 * 2**20))
    return path


@attack("size")
def zip_of_many(folder: Path) -> Path:
    """More files than any bundle has."""
    path = folder / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w") as target:
        for number in range(5001):
            target.writestr(f"{NAME}/docs/{number}.txt", b"")
    return path


@attack("archive")
def zip_with_something_in_front(folder: Path) -> Path:
    """A program in front of the archive."""
    path = write_archive(harmless(), folder)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    return path


@attack("archive")
def zip_comment(folder: Path) -> Path:
    """Something behind the archive, where an archive may begin again."""
    path = write_archive(harmless(), folder)
    with zipfile.ZipFile(path, "a") as target:
        target.comment = b"PK\3\4"
    return path


@attack("archive")
def zip_overlap(folder: Path) -> Path:
    """Two entries of the directory that share one file, as bombs do that need no deflate."""
    path = write_archive(harmless(), folder)
    with zipfile.ZipFile(path, "a") as target:
        first = target.infolist()[0]
        twin = zipfile.ZipInfo(f"{NAME}/docs/twin.txt")
        twin.header_offset, twin.CRC = first.header_offset, first.CRC
        twin.file_size, twin.compress_size = first.file_size, first.compress_size
        target.filelist.append(twin)
        target.NameToInfo[twin.filename] = twin
        target._didModify = True
    return path


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Write other bytes, as many, over the first of these; what else the archive says of them stays."""
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    return path


@attack("archive")
def zip_two_names(folder: Path) -> Path:
    """The header of a file has another name than the directory: readers go by one or the other."""
    return patched(write_archive(harmless() | {"docs/aaaa.txt": b"x"}, folder), b"docs/aaaa.txt", b"docs/aaaa.pyc")


@attack("archive")
def zip_second_name(folder: Path) -> Path:
    """An extra field with another name, in Unicode, by which some programs go."""
    path = write_archive(harmless(), folder)
    other = f"{NAME}/docs/evil.pyc".encode()
    entry = zipfile.ZipInfo(f"{NAME}/docs/a.txt")
    field = b"\1" + struct.pack("<I", zlib.crc32(entry.filename.encode())) + other
    entry.extra = struct.pack("<HH", 0x7075, len(field)) + field
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(entry, b"x")
    return path


@attack("archive")
def zip_encrypted(folder: Path) -> Path:
    """A file that cannot be looked at."""
    path = write_archive(harmless(), folder)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(bytes(content))
    return path


@attack("archive")
def zip_damaged(folder: Path) -> Path:
    """A file whose sum is wrong."""
    return patched(write_archive(harmless(), folder), b"# A bundle", b"# A b\xfcndle")


@attack("archive")
def zip_wrong_size(folder: Path) -> Path:
    """The directory says that a deflated file is short; it is not."""
    path = folder / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in harmless().items():
            target.writestr(f"{NAME}/{name}", content)
        target.writestr(f"{NAME}/docs/big.txt", b"x" * 1000)
        entry = target.getinfo(f"{NAME}/docs/big.txt")
        entry.file_size, entry.CRC = 10, zlib.crc32(b"x" * 10)
    return path


# the bundle's own manifest


@attack("manifest")
def manifest_of_other_bytes(folder: Path) -> Path:
    """A file was changed after packing."""
    from medseg_ext.sharing.manifest import make_manifest

    files = harmless()
    files["manifest.json"] = make_manifest(files, {"name": NAME, "version": "0.1.0"})
    return write_folder(files | {"docs/README.md": b"# Another\n"}, folder)


@attack("manifest")
def manifest_without_a_file(folder: Path) -> Path:
    """A file was added after packing."""
    from medseg_ext.sharing.manifest import make_manifest

    files = harmless()
    files["manifest.json"] = make_manifest(files, {"name": NAME, "version": "0.1.0"})
    return write_folder(files | {"docs/more.md": b"x"}, folder)


with_files("manifest_that_is_none", "manifest", **{"manifest.json": '{"format": 1, "files": {"a": {}}}'})
