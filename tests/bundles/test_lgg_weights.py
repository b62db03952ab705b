"""The shipped LGG weights, never shown a phantom, find a phantom's lesion where no threshold does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg_ext.metrics.overlap import dice
from medseg_ext.phantoms import best_threshold_dice, make_phantom
from medseg_ext.transforms import KeepLesions, NormalizeHead
from medseg_ext.workflow import load_weights

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "lgg_2d_segmentation"
SEEDS = range(20)


@pytest.fixture(scope="module")
def config() -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    parser["bundle_root"], parser["device"] = str(BUNDLE), torch.device("cpu")
    return parser


@pytest.mark.slow
def test_phantoms_need_the_network(config: ConfigParser) -> None:
    network = load_weights(config.get_parsed_content("network_def"), BUNDLE / "models" / "model.pt").eval()
    network = network.to(memory_format=torch.channels_last)
    inferer, channels = config.get_parsed_content("inferer"), config["channel_order"]
    keep = KeepLesions(config["threshold"], config["smallest_component"], config["least_peak"])
    by_network, by_threshold = [], []
    for seed in SEEDS:
        phantom = make_phantom(seed, (256, 256, 20), (0.9375, 0.9375, 6.0), tuple(channels))
        image = torch.from_numpy(NormalizeHead()(np.stack([phantom.images[name] for name in channels])))
        mask = keep(torch.sigmoid(inferer(image[None], network)[0]))[0].numpy()
        by_network.append(dice(mask, phantom.mask))
        by_threshold.append(best_threshold_dice(phantom.images["flair"], phantom.mask)[0])
    print(f"mean Dice: weights {np.mean(by_network):.3f}, best FLAIR threshold {np.mean(by_threshold):.3f}")
    assert np.mean(by_network) >= 0.7
    assert np.mean(by_threshold) < 0.5


def test_a_fill_around_the_scan_changes_no_mask(config: ConfigParser) -> None:
    """Programs write -1024 or -32768 where nothing was measured."""
    network = load_weights(config.get_parsed_content("network_def"), BUNDLE / "models" / "model.pt").eval()
    inferer, channels = config.get_parsed_content("inferer"), config["channel_order"]
    phantom = make_phantom(0, (256, 256, 6), (0.9375, 0.9375, 20.0), tuple(channels))
    image = np.stack([phantom.images[name] for name in channels]).astype(np.float32)
    masks = []
    for fill in (None, -1024.0, -32768.0):
        filled = image.copy()
        if fill is not None:
            filled[:, :12] = filled[:, -9:] = filled[:, :, :10] = fill
        ready = torch.from_numpy(NormalizeHead()(filled))
        masks.append((inferer(ready[None], network)[0, 0] > 0).numpy())
    assert masks[0].any()
    assert [dice(mask, masks[0]) >= 0.99 for mask in masks[1:]] == [True, True]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0.3), (0.1, 0.1), (0, 1e-6)])
def test_what_the_mask_takes_is_followed(threshold: float, expected: float) -> None:
    """With a low threshold the search from slice to slice goes as far down as the mask does."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    parser["threshold"] = threshold
    assert parser.get_parsed_content("inferer").least_logit == pytest.approx(math.log(expected / (1 - expected)))
