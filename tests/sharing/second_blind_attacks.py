"""Attacks of a second author who had not seen the audit's source, and changes that a lab makes to a bundle of its own.

As in :mod:`blind_attacks`, a function takes the bundle's folder and plants one trick; a payload does no more than make
files or folders named OWNED_NN beside it. What is refused is said in ``test_blind_attacks.py``.
"""

from __future__ import annotations

from pathlib import Path

from blind_attacks import _edit, _first, _marker


def _set(bundle: Path, name: str = "inference.json", **ids: object) -> Path:
    _edit(bundle, lambda config: config.update(ids), name)
    return bundle


def _replace(bundle: Path, file: str, old: str, new: str) -> Path:
    path = bundle / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return bundle


def _append(bundle: Path, file: str, text: str) -> Path:
    with (bundle / file).open("a", encoding="utf-8") as target:
        target.write(text)
    return bundle


def attack_01_defaults_of_a_formatter(bundle: Path) -> Path:
    """From Python 3.12 on, the defaults of a formatter in logging.conf are evaluated."""
    return _append(bundle, "configs/logging.conf", f"defaults={{'x': open('{_marker(bundle, '01')}', 'w')}}\n")


def attack_02_empty_text_in_front(bundle: Path) -> Path:
    """An empty text is a relative path, but what stands behind it begins at the root."""
    return _set(bundle, nothing="", output_dir=f"$@nothing + '{_marker(bundle, '02')}'")


def attack_03_empty_bundle_root(bundle: Path) -> Path:
    """The same with bundle_root."""
    return _set(bundle, bundle_root="", output_dir=f"$@bundle_root + '{_marker(bundle, '03')}'")


def attack_04_empty_root_in_an_overlay(bundle: Path) -> Path:
    """The root is emptied by another file, which a user may merge."""
    (bundle / "configs" / "site.yaml").write_text('bundle_root: ""\n', encoding="utf-8")
    return _set(bundle, output_dir=f"$@bundle_root + '{_marker(bundle, '04')}'")


def attack_05_path_for_a_saver(bundle: Path) -> Path:
    """SaveImage takes a path as the third argument of its call."""
    _first(
        bundle,
        f"$@saver(torch.zeros(1, 4, 4, 4), None, '{_marker(bundle, '05')}')",
        saver={"_target_": "SaveImage", "output_dir": "results"},
    )
    return bundle


def attack_06_path_for_a_mapped_saver(bundle: Path) -> Path:
    """The same through map."""
    _first(
        bundle,
        f"$list(map(@saver, [torch.zeros(1, 4, 4, 4)], [None], ['{_marker(bundle, '06')}']))",
        saver={"_target_": "SaveImage", "output_dir": "results", "output_ext": ".nii"},
    )
    return bundle


def attack_07_saver_as_a_network(bundle: Path) -> Path:
    """The same through an evaluator that takes the saver for its network and the path from prepare_batch."""

    def change(config: dict) -> None:
        config["evaluator"]["network"] = {"_target_": "SaveImage", "output_dir": "results"}
        path = f"(None, '{_marker(bundle, '07')}')"
        config["evaluator"]["prepare_batch"] = (
            f"$lambda data, device, fast, **more: (data['image'], None, {path}, dict())"
        )

    _edit(bundle, change)
    return bundle


def attack_08_copy_of_the_weights(bundle: Path) -> Path:
    """A training copies its best weights over any file."""
    old = '"copy": "$workflow.served_weights(@bundle_root)"'
    return _replace(bundle, "configs/train.json", old, f'"copy": "{_marker(bundle, "08")}"')


def attack_09_copy_in_an_overlay(bundle: Path) -> Path:
    """The same by a number of a list, which a merged list may have shifted."""
    text = f"train#handlers#40#copy: {_marker(bundle, '09')}\n"
    (bundle / "configs" / "site.yaml").write_text(text, encoding="utf-8")
    return bundle


def attack_10_folders_of_the_data(bundle: Path) -> Path:
    """SaveImaged repeats the folders of the image below data_root_dir; with a deep one, that leads up and out."""
    saver = {"_target_": "SaveImaged", "keys": "mask", "output_dir": "results", "data_root_dir": "/a/b/c/d/e/f/g/h/i/j"}
    _edit(bundle, lambda config: config["postprocessing"]["transforms"].append(saver))
    return bundle


def attack_11_report_of_an_export(bundle: Path) -> Path:
    """converter_kwargs go to torch.onnx.export, which writes a report into artifacts_dir."""
    text = f"  report: true\n  artifacts_dir: {_marker(bundle, '11')}\n"
    return _append(bundle, "configs/onnx_export.yaml", text)


def attack_12_report_by_a_key(bundle: Path) -> Path:
    """The same by an id."""
    text = f"converter_kwargs#report: true\nconverter_kwargs#artifacts_dir: {_marker(bundle, '12')}\n"
    return _append(bundle, "configs/onnx_export.yaml", text)


def attack_13_compiler_flags_by_a_key(bundle: Path) -> Path:
    """Options of the compiler, of which one adds -wrapper to the call of g++, by an id below compile_kwargs."""
    options = {"cpp.march": f"native -wrapper sh,-c,touch$IFS{_marker(bundle, '13')}"}
    _edit(bundle, lambda config: config["evaluator"].update(compile=True))
    return _set(bundle, **{"evaluator::compile_kwargs::options": options})


def attack_14_a_folder_is_made(bundle: Path) -> Path:
    """create_file_basename, as a component, makes the folder that it is told."""
    made = {
        "_target_": "monai.data.create_file_basename",
        "postfix": "",
        "input_file_name": "x",
        "folder_path": _marker(bundle, "14"),
    }
    _first(bundle, "$@made", made=made)
    return bundle


def attack_15_weights_of_torchvision(bundle: Path) -> Path:
    """torchvision fetches weights by an argument named weights."""
    _first(bundle, "$@net", net={"_target_": "TorchVisionFCModel", "model_name": "resnet18", "weights": "DEFAULT"})
    return bundle


def attack_16_files_for_the_store(bundle: Path) -> Path:
    """A tracked run logs any file of the machine."""
    _edit(bundle, lambda config: config["tracking_details"].update(files=["/etc/passwd"]))
    return bundle


def attack_17_file_for_the_store_by_a_number(bundle: Path) -> Path:
    """The same for one item of the list."""
    return _set(bundle, **{"tracking_details::results::0": "/etc/passwd"})


def attack_18_names_of_files(bundle: Path) -> Path:
    """The names of files in a user's home become the title of a report."""
    _edit(bundle, lambda config: config["handlers"][0].update(title="$str(os.listdir(os.path.expanduser('~')))"))
    return bundle


def attack_19_script_in_markdown(bundle: Path) -> Path:
    """The card has a script, for whoever shows it as HTML."""
    return _append(bundle, "docs/README.md", "\n<script>fetch('http://127.0.0.1:9')</script>\n")


def attack_20_handler_in_markdown(bundle: Path) -> Path:
    """The same on an image that is not there."""
    return _append(bundle, "docs/README.md", '\n<img src="x"\n onerror="alert(1)">\n')


def attack_21_scheme_in_two_parts(bundle: Path) -> Path:
    """TensorBoard takes file:///... for a folder through fsspec; of each half the other is not to be seen."""
    handler = {"_target_": "TensorBoardStatsHandler", "log_dir": f"$'file' + '://{_marker(bundle, '21')}'"}
    _edit(bundle, lambda config: config["handlers"].append(handler))
    return bundle


def attack_22_macro_behind_a_folder(bundle: Path) -> Path:
    """A text that is put behind the output folder is a macro, by which MONAI puts another there."""
    return _set(bundle, up="/../OWNED_22", place="%up", output_dir="$@bundle_root + @place")


def attack_23_neighbour_of_the_bundle(bundle: Path) -> Path:
    """Behind the bundle's absolute path, a letter makes the name of the folder beside it."""
    return _set(bundle, output_dir="$os.path.abspath(@bundle_root) + '_OWNED_23'")


def attack_24_dot_before_a_joined_path(bundle: Path) -> Path:
    """'.' and './x' are harmless, one behind the other they lead up."""
    return _set(bundle, output_dir="$@bundle_root + os.path.join('./OWNED_24')")


def attack_25_date_that_is_empty(bundle: Path) -> Path:
    """The time zone of a time without one is the empty text, behind which a path begins at the root."""
    where = f"'{_marker(bundle, '25')}'"
    return _set(
        bundle,
        imports=["$import datetime", "$import os", "$import torch", "$import monai"],
        output_dir=f"$datetime.datetime.now().strftime('%Z') + {where}",
    )


def attack_26_merged_patches(bundle: Path) -> Path:
    """ZarrAvgMerger makes its store anywhere."""
    inferer = {"_target_": "PatchInferer", "merger_cls": "ZarrAvgMerger", "store": _marker(bundle, "26")}
    return _set(bundle, inferer=inferer)


def attack_27_number_of_a_patch(bundle: Path) -> Path:
    """SaveImaged puts the number of a patch, from metadata, into the file's name, and then resolves the path."""
    meta = {"filename_or_obj": "x.nii.gz", "patch_index": f"/../../../../../../../..{_marker(bundle, '27')}"}
    return _set(bundle, data=[{"image": "x.nii.gz", "pred_meta_dict": meta}])


def harmless_1_network(bundle: Path) -> Path:
    """Another network of MONAI."""
    network = {
        "_target_": "monai.networks.nets.AttentionUnet",
        "spatial_dims": 2,
        "in_channels": "$len(@channel_order) * (2 * @neighbours + 1)",
        "out_channels": 1,
        "channels": [16, 32, 64],
        "strides": [2, 2],
    }
    return _set(bundle, network_def=network)


def harmless_2_loss(bundle: Path) -> Path:
    """Another loss."""
    loss = {"_target_": "monai.losses.DiceFocalLoss", "sigmoid": True, "gamma": 2.0, "lambda_focal": 0.5}
    return _set(bundle, "train.json", loss=loss)


def harmless_3_transforms(bundle: Path) -> Path:
    """More transforms, a lambda, a saver."""

    def change(config: dict) -> None:
        config["preprocessing"]["transforms"] += [
            {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.1},
            {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: torch.clamp(x, -4, 4)"},
        ]
        saver = {"_target_": "SaveImaged", "keys": "mask", "output_dir": "$@output_dir + '/nifti'"}
        saver |= {"output_postfix": "seg", "output_ext": ".nii.gz", "data_root_dir": ""}
        config["postprocessing"]["transforms"].append(saver)

    _edit(bundle, change)
    return bundle


def harmless_4_places(bundle: Path) -> Path:
    """Results in a folder of the lab's, and data at an absolute path."""
    output_dir = "$os.path.join(@bundle_root, 'results', 'our_lab_2026')"
    return _set(bundle, output_dir=output_dir, dataset_dir="/data/our_lab/studies")


def harmless_5_texts(bundle: Path) -> Path:
    """A page that speaks of scripts and compares numbers, a table, a list of changes."""
    notes = "# Notes\nRun the script; p < .05, only = 3 of 10.\nSee <b>[the card](README.md)</b>.\n"
    (bundle / "docs" / "site_notes.md").write_text(notes, encoding="utf-8")
    (bundle / "docs" / "results.csv").write_text("patient,dice\np1,0.9\n", encoding="utf-8")
    (bundle / "CHANGELOG.md").write_text("# 0.3\n", encoding="utf-8")
    return bundle


def harmless_6_export(bundle: Path) -> Path:
    """Another version of ONNX, with constants folded, and a compiled evaluator."""
    _append(bundle, "configs/onnx_export.yaml", "  do_constant_folding: true\n")
    settings = {"compile": True, "compile_kwargs": {"mode": "reduce-overhead"}}
    _edit(bundle, lambda config: config["evaluator"].update(settings))
    return bundle
