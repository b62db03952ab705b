"""Distance of two sets as an encoder sees them, on phantoms and pieces of noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from tiny_patients import write_kaggle

from medseg_ext.experiments.distance import Sample, SliceEncoder, choose_slices, measure_distance
from medseg_ext.experiments.study import People
from medseg_ext.training import make_piece, write_piece

LGG = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
SMALL = {"features": [4, 6, 8]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parser = ConfigParser()
    parser.read_config([str(LGG / "configs" / name) for name in ("train.json", "twin.yaml")])
    parser.update(SMALL)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def test_slices_with_half_as_much_head_as_the_fullest() -> None:
    head = np.zeros((4, 4, 6), bool)
    for index, rows in enumerate((0, 1, 2, 4, 3, 2)):
        head[:rows, :, index] = True
    assert choose_slices(head) == [2, 3, 4, 5]
    assert choose_slices(head, 2) == [2, 5]


def test_features_ignore_padding_and_other_sequences(weights: Path) -> None:
    encoder = SliceEncoder(LGG, weights, SMALL)
    assert encoder.divisor == 8
    image = torch.randn(2, 3, 16, 16)
    head = torch.ones(2, 16, 16, dtype=torch.bool)
    sample = Sample("slices", "p", image, head, torch.zeros(3), [True] * 3)
    features = encoder(sample, 1)
    assert features.shape == (8,)
    other = image.clone()
    other[:, 0] += 5
    np.testing.assert_allclose(encoder(sample._replace(image=other), 1), features)
    assert not np.allclose(encoder(sample, 0), features)
    # the mean over slices: the same slice twice changes nothing
    twice = sample._replace(image=image[[0, 0, 1, 1]], head=head[[0, 0, 1, 1]])
    np.testing.assert_allclose(encoder(twice, 1), features, rtol=1e-5)


def test_distance(weights: Path, tmp_path: Path) -> None:
    names = [f"TCGA_CS_000{i}_19990101" for i in range(6)]
    for seed, name in enumerate(names):
        write_kaggle(tmp_path, name, seed)
    # T1 of one of them is a copy of FLAIR, which is how the set says that it is missing
    for file in (tmp_path / "kaggle_3m" / names[1]).glob("*.tif"):
        if not file.stem.endswith("_mask"):
            image = np.array(Image.open(file))
            image[..., 0] = image[..., 1]
            Image.fromarray(image).save(file)
    rng = np.random.default_rng(0)
    for i in range(3):
        # no T1 with contrast in two of three
        image = rng.normal(size=(4, 24, 20, 12))
        image[1] *= i == 0
        item = {"image": image, "label": np.zeros((3, 24, 20, 12)), "name": f"c{i}", "patient": f"B{i}", "fold": 0}
        write_piece(tmp_path / "pieces", make_piece(item, "cube"))
    people = People({"B0": "TCGA_CS_0000"})
    folder, pieces = tmp_path / "kaggle_3m", tmp_path / "pieces"
    path = measure_distance(
        LGG, weights, folder, names[4:], names[:4], pieces, ["cube"], people, tmp_path / "out", 50, SMALL
    )
    content = json.loads(path.read_text())
    # the first is among the pieces too; T1 with contrast has one cube: no sample
    assert [(d["sequence"], d["other"], d["n"]) for d in content["distances"]] == [
        ("t1", "slices trained on", [2, 2]),
        ("t1", "cube", [2, 3]),
        ("flair", "slices trained on", [3, 2]),
        ("flair", "cube", [3, 3]),
        ("t1ce", "slices trained on", [3, 2]),
    ]
    for d in content["distances"]:
        same = [other["bandwidth"] for other in content["distances"] if other["sequence"] == d["sequence"]]
        assert set(same) == {d["bandwidth"]}
        # noise is not like heads, and heads are like heads
        assert (d["mmd2"] > 0.2) == (d["other"] == "cube")
    # no other of the 20 divisions of 6 into 3 and 3 is as far, but for its mirror image
    (flair,) = [d for d in content["distances"] if (d["sequence"], d["other"]) == ("flair", "cube")]
    assert flair["p"] < 0.3
    assert "1 LGG patients who are among the pieces too are left out" in content["note"]
    assert (tmp_path / "out" / content["picture"]).is_file()
