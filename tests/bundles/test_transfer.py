"""Transfer learning as the headers of the overlays say, in small: each run an epoch on phantoms."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from medseg_ext.phantoms import WRITERS, make_phantom

from .conftest import ROOT, SMALL, Runner, as_options

LGG, BRATS = (ROOT / "bundles" / name for name in ("lgg_2d_segmentation", "brats_3d_segmentation"))
FEATURES = [4, 6, 8]
ENCODER = "backbone.(input_block|downsamples|bottleneck)"
SHORT = {"features": FEATURES, "max_epochs": 1, "batch_size": 2, "samples_per_epoch": 2}
HIDDEN = {"hidden": 2, "shuffled": 2}
SMALLER: dict[str, dict[str, Any]] = {
    LGG.name: {**HIDDEN, "hidden_size": [8, 8], "shuffled_size": [4, 4]},
    BRATS.name: {**HIDDEN, "hidden_size": [8, 8, 8], "shuffled_size": [4, 4, 4]},
}


@dataclass(frozen=True)
class Data:
    """Phantoms in the layout of a bundle, three with a split file; ``bare`` are the same without masks."""

    folder: Path
    bare: Path
    split: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    made = {}
    for bundle in (LGG, BRATS):
        small, root = SMALL[bundle.name], tmp_path_factory.mktemp(bundle.name)
        names = [WRITERS[small.layout](make_phantom(i, **small.phantom), root / "studies").name for i in range(2)]
        shutil.copytree(root / "studies", root / "bare", ignore=shutil.ignore_patterns(small.masks))
        (root / "split.json").write_text(json.dumps({"train": names[:1], "val": names[1:]}))
        made[bundle.name] = Data(root / "studies", root / "bare", root / "split.json")
    return made


Train = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def train(data: dict[str, Data]) -> Train:
    """Gives ``train(bundle, overlays, output, **ids)``: weights at the end of a run in this process."""

    def run(
        bundle: Path, overlays: list[str], output: Path, last: str = "model_last.pt", **ids: Any
    ) -> dict[str, torch.Tensor]:
        found = data[bundle.name]
        short = SMALL[bundle.name].training | SHORT | {"dataset_dir": str(found.folder), "split_file": str(found.split)}
        workflow = ConfigWorkflow(
            config_file=[str(bundle / "configs" / f"{name}") for name in ("train.json", *overlays)],
            workflow_type="train",
            logging_file=False,
            bundle_root=str(bundle),
            output_dir=str(output),
            **{**short, **ids},
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()
        return torch.load(output / last, weights_only=True)

    return run


@pytest.fixture(scope="module")
def twin(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the 2-D twin, of LGG slices."""
    folder = tmp_path_factory.mktemp("twin")
    train(LGG, ["twin.yaml"], folder)
    return folder / "model_last.pt"


def outcomes(folder: Path) -> dict[str, tuple[str, str]]:
    """What became of the network's own tensors, and why."""
    with (folder / "transfer.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["outcome"] != "unused"]
    return {row["name"]: (row["outcome"], row["how"]) for row in rows}


def test_slices_to_volumes(train: Train, twin: Path, tmp_path: Path) -> None:
    flat = torch.load(twin, weights_only=True)
    deep = train(
        BRATS,
        ["transfer.yaml"],
        tmp_path,
        source=str(twin),
        source_channels=["t1", "flair", "t1ce"],
        frozen=["backbone.(input_block|downsamples)"],
        layer_decay=0.9,
    )
    weight = "backbone.downsamples.0.conv2.conv.weight"
    exact = {"rtol": 1e-6, "atol": 1e-7}  # what is saved is an average over the steps
    torch.testing.assert_close(deep[weight][..., 1], flat[weight], **exact, msg="inflated, and frozen since")
    norm = "backbone.downsamples.0.norm1.running_mean"
    torch.testing.assert_close(deep[norm], flat[norm], **exact)
    bottom = "backbone.bottleneck.conv2.conv.weight"
    assert 0 < (deep[bottom][..., 1] - flat[bottom]).abs().max() < 0.1 * flat[bottom].abs().max()
    found = outcomes(tmp_path)
    assert found["backbone.input_block.conv1.conv.weight"] == (
        "adapted",
        "inflated, centred; t1, flair, t1ce to t1, t1ce, t2, flair by name",
    )
    assert found["backbone.upsamples.0.transp_conv.conv.weight"] == ("fresh", "not one of the layers asked for")


def test_stacks_to_volumes(train: Train, data: dict[str, Data], tmp_path: Path) -> None:
    stacks = train(
        BRATS,
        ["stacks.yaml"],
        tmp_path / "stacks",
        dataset_dir=str(data[LGG.name].folder),
        split_file=str(data[LGG.name].split),
        patch_size=[24, 24, 24],
    )
    assert stacks["backbone.input_block.conv1.conv.weight"].shape == (4, 8 * 3, 1, 1, 1)
    train(
        BRATS,
        ["transfer.yaml"],
        tmp_path / "out",
        source=str(tmp_path / "stacks" / "model_last.pt"),
        source_channels=["t1", "t1ce", "flair"],
        source_regions=["tc", "wt", "et"],
        layers=[],
        unfreeze={2: ["backbone.input_block"]},
        frozen=["backbone.input_block"],
    )
    found = outcomes(tmp_path / "out")
    assert {outcome for outcome, _ in found.values()} == {"loaded", "adapted"}
    assert sum(outcome == "adapted" for outcome, _ in found.values()) == 1, "the first convolution, for the T2"


def test_volumes_to_slices(train: Train, tmp_path: Path) -> None:
    """From the folder of the other bundle, whose metadata names its sequences and regions."""
    source = tmp_path / "brats"
    shutil.copytree(BRATS / "configs", source / "configs")
    (source / "models").mkdir()
    parser = ConfigWorkflow(str(BRATS / "configs" / "inference.json"), workflow_type="infer", features=FEATURES).parser
    torch.manual_seed(0)
    deep = parser.get_parsed_content("network_def").state_dict()
    torch.save(deep, source / "models" / "model.pt")
    flat = train(LGG, ["twin.yaml", "transfer.yaml"], tmp_path / "out", source=str(source), frozen=[ENCODER])
    weight = "backbone.downsamples.0.conv2.conv.weight"
    torch.testing.assert_close(flat[weight], deep[weight].sum(-1), rtol=1e-5, atol=1e-6)
    found = outcomes(tmp_path / "out")
    assert found["backbone.output_block.conv.conv.weight"] == ("adapted", "flattened, sum; tc, wt, et to wt by name")
    assert not [name for name, (outcome, _) in found.items() if outcome == "fresh"]


@pytest.mark.parametrize(("bundle", "overlays"), [(LGG, ["twin.yaml"]), (BRATS, [])], ids=["lgg", "brats"])
def test_without_masks_first(
    bundle: Path, overlays: list[str], train: Train, data: dict[str, Data], tmp_path: Path
) -> None:
    channels = json.loads((bundle / "configs" / "metadata.json").read_text())["channel_order"]
    train(
        bundle,
        [*overlays, "pretrain.yaml"],
        tmp_path / "pretrained",
        dataset_dir=str(data[bundle.name].bare),
        **SMALLER[bundle.name],
    )
    train(
        bundle,
        [*overlays, "transfer.yaml"],
        tmp_path / "out",
        source=str(tmp_path / "pretrained" / "model_last.pt"),
        source_channels=channels,
        layers=[],
    )
    found = outcomes(tmp_path / "out")
    assert {name: how for name, (outcome, how) in found.items() if outcome == "fresh"} == {
        "backbone.output_block.conv.conv.weight": "regions of the source not known",
        "backbone.output_block.conv.conv.bias": "regions of the source not known",
    }


def test_on_parts_of_patients(train: Train, twin: Path, pieces: Path, tmp_path: Path) -> None:
    """Without masks, then with them, each with the overlay for pieces."""
    here = {"dataset_dir": str(pieces), "split_file": "", "fold": 1, "patches_a_sample": 1, "slab_thickness": [8, 8]}
    here |= {"patch_size": [32, 32, 24], "patch_sizes": {"cube": [24, 24, 24]}}
    first, second = tmp_path / "pretrained", tmp_path / "out"
    restored = train(BRATS, ["pretrain.yaml", "pieces.yaml"], first, **here, **SMALLER[BRATS.name])
    assert restored["backbone.output_block.conv.conv.bias"].shape == (4 * 8,)
    channels = ["t1", "t1ce", "t2", "flair"]
    source = {"source": str(first / "model_last.pt"), "source_channels": channels}
    weights = train(BRATS, ["pieces.yaml", "transfer.yaml"], second, **here, **source)
    assert weights["backbone.input_block.norm1.num_batches_tracked"] > 1, "its statistics learn on"
    assert {outcome for outcome, _ in outcomes(second).values()} == {"loaded", "fresh"}


def test_mlflow_has_the_table(train: Train, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path / 'mlruns.db'}"
    names = ["t1", "flair", "t1ce"]
    train(
        BRATS,
        ["transfer.yaml"],
        tmp_path,
        source=str(twin),
        source_channels=names,
        tracking="mlflow",
        tracking_uri=store,
    )
    client = mlflow.MlflowClient(store)
    (run,) = [run for e in client.search_experiments() for run in client.search_runs(e.experiment_id)]
    assert run.data.params["source"] == str(twin)
    assert 0.3 < float(run.data.params["filled_share"]) < 1
    assert "transfer.csv" in {entry.path for entry in client.list_artifacts(run.info.run_id)}


def test_as_a_command(data: dict[str, Data], twin: Path, tmp_path: Path, run_in: Runner) -> None:
    ids = SMALL[LGG.name].training | SHORT
    ids |= {"dataset_dir": data[LGG.name].folder, "split_file": data[LGG.name].split, "output_dir": tmp_path}
    ids |= {"source": twin, "source_channels": "['t1','flair','t1ce']", "source_regions": "['wt']"}
    ids |= {"frozen": f"['{ENCODER}']", "unfreeze": "{2: ['backbone']}", "rename": "{'output_block': 'head'}"}
    configs = "['configs/train.json','configs/twin.yaml','configs/transfer.yaml']"
    done = run_in(LGG, *["monai.bundle", "run", "training", "--config_file", configs], *as_options(ids))
    assert done.returncode == 0, done.stderr
    for words in ("of the parameters asked for", "no such tensor in the source", "no such tensor in the network"):
        assert words in done.stdout


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option": (
        {"sourse": "x.pt"},
        "sourse: found an option that nothing uses, allowed one that the config has",
    ),
    "no file": ({"source": "gone.pt"}, "gone.pt: found nothing there"),
    "digest": ({"source_sha256": "0" * 64}, "found SHA-256"),
    "no digest": ({"source_sha256": "abc"}, "source_sha256: found 'abc', allowed 64 hexadecimal digits"),
    "share": ({"layers": [], "least_share": 1}, "found weights for"),
    "decay": ({"layer_decay": 0}, "layer_decay: found 0, allowed above 0, 1 at the most"),
    "inputs": ({"inputs": "max"}, "inputs: found 'max', allowed 'name', 'mean' or 'repeat'"),
    "layers": ({"layers": ["encoder"]}, "layers: found 'encoder', with which no name begins"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(
    what: str, train: Train, twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, message = BAD[what]
    ids = {"source": str(twin), "source_channels": ["t1", "flair", "t1ce"], "least_share": 0.9} | ids
    with pytest.raises(SystemExit) as caught:
        train(BRATS, ["transfer.yaml"], tmp_path / "out", **ids)
    assert caught.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
