"""The schema for use without a network, and the metadata against it, through MONAI's own command."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft201909Validator
from monai.bundle import verify_metadata

REQUIRED = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)
TENSOR = ("network_data_format", "inputs", "image")
# where, and a value of a wrong type
WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    *(((key,), 1) for key in REQUIRED),
    *(((key,), ["text"]) for key in ("data_source", "data_type", "image_classes", "label_classes", "pred_classes")),
    (("intended_use",), 3),
    (("name",), 3),
    *(((key,), "text") for key in ("changelog", "required_packages_version", "eval_metrics", "supported_apps")),
    (("changelog", "0.1.0"), 1),
    (("references",), "one"),
    (("references", 0), 1),
    (("network_data_format", "inputs"), []),
    (("network_data_format", "outputs"), "pred"),
    (("network_data_format", "inputs", "image"), None),
    (("network_data_format", "inputs", "image"), ["tensor"]),
    ((*TENSOR, "type"), 1),
    ((*TENSOR, "format"), None),
    ((*TENSOR, "num_channels"), "9"),
    ((*TENSOR, "num_channels"), 9.5),
    ((*TENSOR, "spatial_shape"), "32*n"),
    ((*TENSOR, "spatial_shape", 0), 1.5),
    ((*TENSOR, "dtype"), 32),
    ((*TENSOR, "value_range"), 4),
    ((*TENSOR, "value_range", 0), "-4"),
    ((*TENSOR, "is_patch_data"), "no"),
    ((*TENSOR, "channel_def"), ["FLAIR"]),
    ((*TENSOR, "channel_def", "0"), 1),
]


@pytest.fixture
def schema_file(bundle: Path) -> Path:
    (path,) = (bundle / "configs").glob("meta_schema_*.json")
    return path


@pytest.fixture
def metadata(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the schema that lies in the bundle was not used")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("monai.apps.utils.urlretrieve", refuse)
    yield


def verify(metadata: dict[str, Any], schema_file: Path, folder: Path) -> None:
    path = folder / "metadata.json"
    path.write_text(json.dumps(metadata), encoding="utf-8")
    verify_metadata(meta_file=str(path), filepath=str(schema_file))


def test_schema_is_one_itself(schema_file: Path) -> None:
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2019-09/schema"
    Draft201909Validator.check_schema(schema)


def test_schema_has_the_name_of_the_published_one(schema_file: Path, metadata: dict[str, Any]) -> None:
    assert metadata["schema"].endswith("/" + schema_file.name)


def test_our_metadata_is_accepted(bundle: Path, schema_file: Path) -> None:
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema_file))


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key_is_refused(key: str, metadata: dict[str, Any], schema_file: Path, tmp_path: Path) -> None:
    del metadata[key]
    with pytest.raises(ValueError, match=r"the `schema` field|is a required property"):
        verify(metadata, schema_file, tmp_path)


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_missing_side_is_refused(key: str, metadata: dict[str, Any], schema_file: Path, tmp_path: Path) -> None:
    del metadata["network_data_format"][key]
    with pytest.raises(ValueError, match=f"'{key}' is a required property"):
        verify(metadata, schema_file, tmp_path)


@pytest.mark.parametrize("side, name", [("inputs", "image"), ("outputs", "pred")])
@pytest.mark.parametrize("key", ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"])
def test_missing_part_of_a_tensor_is_refused(
    side: str, name: str, key: str, metadata: dict[str, Any], schema_file: Path, tmp_path: Path
) -> None:
    del metadata["network_data_format"][side][name][key]
    with pytest.raises(ValueError, match=f"'{key}' is a required property"):
        verify(metadata, schema_file, tmp_path)


@pytest.mark.parametrize("where, value", WRONG, ids=lambda v: "-".join(map(str, v)) if isinstance(v, tuple) else None)
def test_wrong_type_is_refused(
    where: tuple[str | int, ...], value: Any, metadata: dict[str, Any], schema_file: Path, tmp_path: Path
) -> None:
    wrong = copy.deepcopy(metadata)
    place: Any = wrong
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    with pytest.raises((ValueError, AttributeError)):  # a schema that is no text fails as an address already
        verify(wrong, schema_file, tmp_path)


@pytest.mark.parametrize("value", [1, 0.5, "text", True])
def test_plain_values_are_inputs_too(value: Any, metadata: dict[str, Any], schema_file: Path, tmp_path: Path) -> None:
    metadata["network_data_format"]["inputs"]["timestep"] = value
    metadata["latent_data_format"] = copy.deepcopy(metadata["network_data_format"])
    verify(metadata, schema_file, tmp_path)


def test_further_data_formats_are_checked(metadata: dict[str, Any], schema_file: Path, tmp_path: Path) -> None:
    metadata["latent_data_format"] = {"inputs": {}}
    with pytest.raises(ValueError, match="'outputs' is a required property"):
        verify(metadata, schema_file, tmp_path)
    del metadata["latent_data_format"]
    metadata["network_data_format"]["post_processed_outputs"] = {"pred": {"type": "image"}}
    with pytest.raises(ValueError, match="is a required property"):
        verify(metadata, schema_file, tmp_path)
