"""The allow-list: exact names, of objects that are defined where they should be."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from medseg_ext.errors import InputError
from medseg_ext.sharing.audit.listing import DENIED, DENIED_MODULES, listed_names
from medseg_ext.sharing.audit.names import read_names
from medseg_ext.sharing.audit.rules import ATTRIBUTES, BUILTINS, RESTRICTED

ALLOWED = read_names()
TOPS = {"monai", "torch", "ignite", "medseg_ext"}


def find(name: str) -> Any:
    parts = name.split(".")
    value: Any = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], start=2):
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(".".join(parts[:position]))
    return value


def test_every_name_is_defined_in_its_package() -> None:
    for name in {*ALLOWED.values, *ALLOWED.components, *ALLOWED.writers}:
        top = name.split(".")[0]
        if top not in TOPS or "." not in name:
            continue
        try:
            value = find(name)
        except (ImportError, AttributeError):
            continue  # of another version of the library
        assert not inspect.ismodule(value), name
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.split(".")[0] == top, name
            assert f"{value.__module__}.{value.__qualname__}" not in DENIED, name
            assert not value.__module__.startswith(DENIED_MODULES), name


@pytest.mark.parametrize(
    "name",
    [
        *("torch.load", "torch.save", "torch.hub.load", "torch.os.system", "torch.compile", "torch.from_file"),
        *("torch.jit.load", "torch.nn", "torch", "monai.bundle.run", "monai.bundle.ConfigParser", "run", "load"),
        *(
            "monai.utils.optional_import",
            "monai.utils.run_cmd",
            "monai.apps.download_url",
            "download_url",
            "numpy.load",
        ),
        *("monai.data.PersistentDataset", "monai.data.load_net_with_metadata", "monai.losses.PerceptualLoss"),
        *("SaveImage", "create_file_basename", "TorchVisionFCModel", "ZarrAvgMerger", "register_as_decoder_plugin"),
        *("os.listdir", "os.path.expanduser"),
        *("monai.handlers.MLFlowHandler", "ignite.handlers.WandBLogger", "medseg_ext.reports.write_csv", "os.system"),
        *("pathlib.Path", "functools.partial", "torch.fx.GraphModule", "torch.distributed.launch", "subprocess.run"),
    ],
)
def test_not_listed(name: str) -> None:
    assert not ALLOWED.is_target(name)


def test_what_is_installed_is_listed() -> None:
    """The file is what the listing makes, here and now, wherever the versions are those it was made from."""
    made = listed_names()
    bare = {name for name in made if "." not in name}
    ours = {name for name in made if name.startswith("medseg_ext.")}
    assert ours == {
        name for name in {*ALLOWED.values, *ALLOWED.components, *ALLOWED.writers} if name.startswith("medseg_ext.")
    }
    assert len(bare & {*ALLOWED.values, *ALLOWED.components, *ALLOWED.writers}) > 1000


def test_components_with_restricted_arguments() -> None:
    assert ALLOWED.components["LoadImaged"] == ()
    assert ALLOWED.components["MILModel"] == ("pretrained",)
    assert "monai.transforms.LoadImage" not in ALLOWED.values


def test_names_that_write_where_they_are_told() -> None:
    assert ALLOWED.writers["monai.handlers.TensorBoardHandler"] == {"log_dir": 1}
    assert ALLOWED.writers["medseg_ext.training.TrainingState"] == {"output_dir": 0, "copy": 9}
    assert ALLOWED.is_target("medseg_ext.training.TrainingState")
    assert ALLOWED.writers["os.makedirs"] == {"name": 0}
    assert ALLOWED.is_target("TensorBoardHandler")
    assert "TensorBoardHandler" not in ALLOWED.values
    assert not ALLOWED.is_target("os.makedirs")


def test_no_component_is_told_a_path_when_it_is_called() -> None:
    """A call may come from anywhere, as an inferer's of what it takes for a network."""
    told = {}
    for name in {*ALLOWED.values, *ALLOWED.components, *ALLOWED.writers}:
        if name.split(".")[0] not in TOPS or "." not in name:
            continue
        try:
            value = find(name)
        except (ImportError, AttributeError):
            continue  # of another version of the library
        if inspect.isclass(value) and "__call__" in dir(value) and not inspect.isabstract(value):
            parameters = inspect.signature(value.__call__).parameters
            told[value.__name__] = {p for p in parameters if RESTRICTED.get(p) in {"inside", "filename"}}
    assert {name for name, places in told.items() if places} == {"LoadImage"}  # which reads it


def test_nothing_leads_to_code() -> None:
    for attributes in (ATTRIBUTES, BUILTINS):
        assert not [name for name in attributes if name.startswith("_")]
    evil = {"gi_frame", "f_globals", "func_globals", "format", "format_map", "tofile", "save", "load", "system", "open"}
    assert not evil & (ATTRIBUTES | BUILTINS)
    assert not {"eval", "exec", "getattr", "type", "vars", "compile", "input", "breakpoint"} & BUILTINS


def test_names_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("# ours\nlab.networks.Net  # a comment\n~lab.Loader reader\n\n")
    allowed = read_names([file])
    assert "lab.networks.Net" in allowed.values
    assert "lab.networks" in allowed.modules
    assert allowed.components["lab.Loader"] == ("reader",)
    file.write_text("lab.*\n")
    with pytest.raises(InputError, match=r"names.txt: found 'lab.\*' in line 1, allowed full names, one a line"):
        read_names([file])


def test_known_code_is_that_of_our_own_bundles() -> None:
    """A notebook that was changed is to be listed anew, by ``sha256sum bundles/*/docs/*.ipynb``."""
    root = Path(__file__).resolve().parents[2]
    listed = (root / "medseg_ext" / "sharing" / "audit" / "known.txt").read_text().splitlines()
    found = sorted(root.glob("bundles/*/docs/*.ipynb"))
    expected = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}" for path in found]
    assert [line for line in listed if not line.startswith("#")] == expected
