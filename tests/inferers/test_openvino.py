"""OpenVINO against torch, where it is installed, and a plain word where it is not."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from monai.networks.nets import SegResNet
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.inferers import BoxWindowInferer, OpenVINONetwork
from medseg_ext.inferers.openvino import _core
from medseg_ext.networks import SpaceToDepth


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


needs_openvino = pytest.mark.skipif(not installed("openvino"), reason="OpenVINO is not installed (extra openvino)")
needs_nncf = pytest.mark.skipif(not installed("nncf"), reason="NNCF is not installed (extra openvino)")


def segresnet() -> nn.Module:
    """Four sequences to three regions at half the resolution inside."""
    torch.manual_seed(0)
    backbone = SegResNet(3, 8, in_channels=32, out_channels=24, blocks_down=(1, 1), blocks_up=(1,))
    return SpaceToDepth(backbone, 3).eval()


def blobs(*spatial: int) -> torch.Tensor:
    """Smooth images, as pure noise puts most logits next to the threshold."""
    noise = torch.randn(1, 4, *(n // 4 for n in spatial), generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, size=spatial, mode="trilinear")


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@needs_openvino
@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_parity_with_torch(precision: str) -> None:
    network = segresnet()
    converted = OpenVINONetwork(network, precision, trace_size=(8, 8, 8), threads=1)
    for spatial in ((16, 24, 32), (32, 16, 16)):  # compiled once for any size
        x = blobs(*spatial)
        with torch.no_grad():
            expected = network(x)
        result = converted(x)
        assert result.dtype == torch.float32
        tolerance = 1e-4 if precision == "f32" else 0.02
        assert float((result - expected).abs().max()) <= tolerance * float(expected.max() - expected.min())
        assert dice(result > 0, expected > 0) >= 0.995


@needs_openvino
def test_one_value_switches_the_inferer() -> None:
    network = segresnet()
    volume = torch.zeros(1, 4, 40, 44, 36)
    volume[..., 4:36, 6:38, 2:34] = blobs(32, 32, 32)
    options = {"divisor": 4, "memory_budget": 1.0, "amp": False}
    plain = BoxWindowInferer(**options)(volume, network)
    inferer = BoxWindowInferer(backend="openvino", **options)
    torch.testing.assert_close(inferer(volume, network), plain, atol=1e-3, rtol=0)
    tiled = BoxWindowInferer(backend="openvino", window=24, mirror_axes=(1,), **options)(volume, network)
    expected = BoxWindowInferer(window=24, mirror_axes=(1,), **options)(volume, network)
    torch.testing.assert_close(tiled, expected, atol=1e-3, rtol=0)


@needs_openvino
def test_new_weights_are_noticed() -> None:
    network = nn.Conv3d(1, 1, 1)
    converted = OpenVINONetwork(network, "f32")
    x = torch.ones(1, 1, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), network(x))
        network.load_state_dict({"weight": torch.full((1, 1, 1, 1, 1), 3.0), "bias": torch.tensor([0.5])})
        torch.testing.assert_close(converted(x), torch.full_like(x, 3.5))


@needs_openvino
@needs_nncf
def test_eight_bit_integers_stay_close() -> None:
    network = segresnet()
    x = blobs(32, 32, 32)
    converted = OpenVINONetwork(network, trace_size=(8, 8, 8)).quantize([x])
    with torch.no_grad():
        expected = network(x)
    assert dice(converted(x) > 0, expected > 0) >= 0.95


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    _core.cache_clear()
    with pytest.raises(
        InputError, match=r"backend: found no package openvino, allowed it installed, as by: pip install"
    ):
        OpenVINONetwork(nn.Conv3d(1, 1, 1))(torch.ones(1, 1, 4, 4, 4))
    _core.cache_clear()


def test_what_cannot_be_converted_is_named() -> None:
    with pytest.raises(ValueError, match="allowed a module for OpenVINO to convert"):
        BoxWindowInferer(window=8, backend="openvino")(torch.ones(1, 1, 8, 8), lambda x: x)
    with pytest.raises(ValueError, match="found further arguments, allowed the image alone"):
        OpenVINONetwork(nn.Conv3d(1, 1, 1))(torch.ones(1, 1, 4, 4, 4), 3)
    with pytest.raises(ValueError, match="precision: found 'int4', allowed 'auto', 'bf16', 'f32'"):
        OpenVINONetwork(nn.Conv3d(1, 1, 1), "int4")
    with pytest.raises(ValueError, match="windows: found none") if installed("nncf") else pytest.raises(InputError):
        OpenVINONetwork(nn.Conv3d(1, 1, 1)).quantize([])
