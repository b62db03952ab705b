"""What every bundle promises, whichever it is: a folder in ``bundles/`` is tested by being there."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load, onnx_export, verify_net_in_out
from packaging.requirements import Requirement

from medseg_ext.layouts import find_studies

from .conftest import Patients, Runner, Small, as_options

MEGABYTES = 2**20


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in strings(part)]


def metadata(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


def network(bundle: Path, ids: dict[str, Any]) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update(ids)
    return parser.get_parsed_content("network_def")


# files


def test_files(bundle: Path) -> None:
    for name in (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/metadata.json",
        "configs/train.json",
        "configs/inference.json",
        "configs/evaluate.yaml",
        "configs/multi_gpu.yaml",
        "configs/transfer.yaml",
        "configs/pretrain.yaml",
    ):
        assert (bundle / name).is_file(), name


def test_no_file_is_too_large_to_share(bundle: Path) -> None:
    assert not [path for path in bundle.rglob("*") if path.is_file() and path.stat().st_size > 25 * MEGABYTES]


def test_licence_parts_code_and_weights(bundle: Path) -> None:
    text = (bundle / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "NON-COMMERCIAL RESEARCH ONLY" in text


def test_nothing_points_outside(bundle: Path) -> None:
    assert not [path for path in bundle.rglob("*") if path.is_symlink()]
    for path in filter(Path.is_file, (bundle / "configs").rglob("*")):
        if path.suffix in {".json", ".yaml"}:
            for text in strings(read(path)):
                assert not Path(text).is_absolute(), (path, text)
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.\./|\.\.\\|/(home|root|tmp|mnt|Users|workspace)/|\b[A-Z]:\\", text), path


# metadata


def test_version(bundle: Path) -> None:
    found = metadata(bundle)
    assert re.fullmatch(r"\d\.\d\.\d", found["version"]), "versions are compared as text: no part above 9"
    assert found["version"] in found["changelog"]


def test_versions_are_those_the_package_allows(bundle: Path) -> None:
    found = metadata(bundle)
    wanted = {"monai": found["monai_version"], "torch": found["pytorch_version"], "numpy": found["numpy_version"]}
    wanted |= found["required_packages_version"]
    assert "medseg-ext" in wanted
    allowed = {r.name: r.specifier for r in map(Requirement, importlib.metadata.requires("medseg-ext") or [])}
    for name, version in wanted.items():
        if name != "medseg-ext":
            assert version in allowed[name], name


def test_labels_of_the_saved_mask(bundle: Path) -> None:
    output = metadata(bundle)["network_data_format"]["outputs"]["pred"]
    assert output["channel_def"]["0"] == "background"
    assert all(value.isdigit() for value in output["channel_def"])
    assert all(output["value_range"][0] <= int(value) <= output["value_range"][1] for value in output["channel_def"])


# configs


def test_handlers_are_dictionaries(bundle: Path) -> None:
    for handler in read(bundle / "configs" / "train.json")["train"]["handlers"]:
        assert isinstance(handler, dict)
        assert "_target_" in handler


def test_ids_to_run(bundle: Path) -> None:
    assert {"training", "run"} <= read(bundle / "configs" / "train.json").keys()
    assert {"inferring", "run"} <= read(bundle / "configs" / "inference.json").keys()
    assert {"evaluating", "run"} <= read(bundle / "configs" / "evaluate.yaml").keys()


def test_training_and_inference_agree(bundle: Path) -> None:
    train, inference = (read(bundle / "configs" / f"{name}.json") for name in ("train", "inference"))
    for name in ("network_def", "network", "channel_order", "device"):
        assert train[name] == inference[name], name
    # whatever the network is made from, and what only one of the two knows
    names = set(re.findall(r"@(\w+)", json.dumps(train["network_def"])))
    assert {name: train[name] for name in names} == {name: inference[name] for name in names}


def test_preprocessing_gives_the_same_image(bundle: Path, small: Small, patients: Patients) -> None:
    channels = read(bundle / "configs" / "inference.json")["channel_order"]
    study = find_studies(patients.folder, channel_order=channels, rules=small.rules)[0][0]
    images = []
    for files, name in (
        (["train.json"], "train::preprocessing"),
        (["train.json"], "validate::preprocessing"),
        (["inference.json"], "preprocessing"),
        (["inference.json", "evaluate.yaml"], "preprocessing"),
    ):
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / file) for file in files])
        item = parser.get_parsed_content(name)({"image": study, "label": study, "patient": study.patient})
        images.append(np.asarray(item["image"]))
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


def test_training_properties(bundle: Path, small: Small, patients: Patients, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(patients.folder),
        split_file=str(patients.split_file),
        output_dir=str(tmp_path),
        **small.network,
        **small.training,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("files", [["inference.json"], ["inference.json", "evaluate.yaml"]], ids=["infer", "evaluate"])
def test_inference_properties(bundle: Path, small: Small, patients: Patients, tmp_path: Path, files: list[str]) -> None:
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / file) for file in files],
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(patients.folder),
        split_file=str(patients.split_file),
        output_dir=str(tmp_path),
        **small.network,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


# the network


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("config", ["train.json", "inference.json"])
def test_network_takes_and_gives_what_the_metadata_says(bundle: Path, config: str, n: int) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / config),
        device="cpu",
        n=n,
    )


def test_network_wants_no_smaller_multiple(bundle: Path, small: Small) -> None:
    inputs = metadata(bundle)["network_data_format"]["inputs"]["image"]
    steps = [int(text.split("*")[0]) for text in inputs["spatial_shape"]]
    full = network(bundle, {}).eval()
    with torch.no_grad():
        shape = [step * 2 for step in steps]
        assert list(full(torch.zeros(1, inputs["num_channels"], *shape)).shape[2:]) == shape
        with pytest.raises(RuntimeError):
            full(torch.zeros(1, inputs["num_channels"], *(step * 3 // 2 for step in steps)))


def test_torchscript(bundle: Path, small: Small, small_weights: Path, tmp_path: Path) -> None:
    inputs = metadata(bundle)["network_data_format"]["inputs"]["image"]
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(small_weights),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        **small.network,
    )
    exported = torch.jit.load(tmp_path / "model.ts").eval()
    original = network(bundle, small.network).eval()
    original.load_state_dict(torch.load(small_weights, weights_only=True))
    image = torch.randn(2, inputs["num_channels"], *(64 for _ in inputs["spatial_shape"]))
    with torch.no_grad():
        torch.testing.assert_close(exported(image), original(image), rtol=1e-4, atol=1e-5)


def test_onnx_with_any_batch(
    bundle: Path, small: Small, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(bundle)
    onnx_export(
        args_file="configs/onnx_export.yaml",
        ckpt_file=str(small_weights),
        filepath=str(tmp_path / "model.onnx"),
        **small.network,
    )
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    original = network(bundle, small.network).eval()
    original.load_state_dict(torch.load(small_weights, weights_only=True))
    inputs = metadata(bundle)["network_data_format"]["inputs"]["image"]
    for batch, size in ((1, 64), (3, 64), (2, 96)):
        image = torch.randn(batch, inputs["num_channels"], *(size for _ in inputs["spatial_shape"]))
        with torch.no_grad():
            expected = original(image).numpy()
        (found,) = session.run(["pred"], {"image": image.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# the shipped weights


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(
    bundle: Path, workflow_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (bundle / "models" / "model.pt").is_file():
        pytest.skip("the bundle has no models/model.pt yet")
    monkeypatch.chdir(tmp_path)  # from wherever the user is
    loaded = load(bundle.name, bundle_dir=str(bundle.parent), workflow_type=workflow_type, source="github")
    stored = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    found = loaded.state_dict()
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        torch.testing.assert_close(found[name].cpu(), value.to(found[name].dtype), msg=name)


# elsewhere


def test_a_copy_runs_anywhere(
    bundle: Path, small: Small, patients: Patients, small_weights: Path, tmp_path: Path, run_in: Runner
) -> None:
    copy = tmp_path / "a copy" / bundle.name
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("models", "results", "eval"))
    (copy / "models").mkdir()
    shutil.copy(small_weights, copy / "models" / "model.pt")
    done = run_in(
        copy,
        *["monai.bundle", "run", "inferring", "--config_file", "configs/inference.json"],
        *as_options({"dataset_dir": patients.folder, **small.network}),
    )
    assert done.returncode == 0, done.stderr
    studies = [path for path in patients.folder.rglob("*") if path.is_dir() and any(path.glob("*.*"))]
    masks = list((copy / "results" / "inference").rglob(small.masks))
    assert len(masks) >= len(studies) == 4


# options


def plain_values(config: dict[str, Any]) -> set[str]:
    """Named values at the top of a config that a person would change."""
    kinds = (bool, int, float, str, list)
    others = {"imports", "rank", "world_size", "experiment_name"}
    return {
        name
        for name, value in config.items()
        if isinstance(value, kinds) and not any(text[:1] in {"$", "@"} for text in strings(value))
    } - others


@pytest.mark.parametrize(
    "files",
    [
        ["train.json"],
        ["train.json", "transfer.yaml"],
        ["train.json", "pretrain.yaml"],
        ["inference.json"],
        ["inference.json", "evaluate.yaml"],
    ],
    ids=" ".join,
)
def test_every_option_says_what_is_allowed(bundle: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = ConfigParser.load_config_files([str(bundle / "configs" / file) for file in files])
    assert "$workflow.check_options()" in config["initialize"]
    assert plain_values(config) <= config["options"].keys() <= config.keys()
    parser = ConfigParser(config)
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    check = config["initialize"].index("$workflow.check_options()")
    parser.get_parsed_content(f"initialize::{check}")  # the values that the files hold are allowed
    parser["max_epocs"] = 1
    parser.parse(reset=True)
    with pytest.raises(SystemExit):
        parser.get_parsed_content(f"initialize::{check}")
    assert "error: max_epocs: found an option that nothing uses" in capsys.readouterr().err


def test_the_metadata_names_the_order_of_the_channels(bundle: Path) -> None:
    for name in ("train.json", "inference.json"):
        assert read(bundle / "configs" / name)["channel_order"] == metadata(bundle)["channel_order"]
