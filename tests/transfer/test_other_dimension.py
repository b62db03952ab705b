"""Kernels in the other dimension: exact where the slices are alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg_ext.transfer.inflate import INFLATIONS, flatten_kernel, other_dimension

KINDS = {False: (nn.Conv2d, nn.Conv3d), True: (nn.ConvTranspose2d, nn.ConvTranspose3d)}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.booleans(), st.sampled_from(INFLATIONS))
def test_inflated(kernel: int, stride: int, transposed: bool, how: str) -> None:
    if transposed and stride > kernel:
        stride = kernel  # else there are slices that nothing reaches
    torch.manual_seed(kernel)
    flat, deep = (kind(2, 3, kernel, stride=stride).double() for kind in KINDS[transposed])
    with torch.no_grad():
        deep.weight.copy_(other_dimension(flat.weight, deep, how, "sum"))
        deep.bias.copy_(flat.bias)
    picture = torch.randn(1, 2, 7, 7).double()
    wanted, found = flat(picture), deep(picture[..., None].expand(1, 2, 7, 7, 40))
    inner = found[..., kernel : found.shape[-1] - kernel]
    assert inner.shape[-1]
    torch.testing.assert_close(inner, wanted[..., None].expand_as(inner))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_flattened(kernel: int, stride: int, transposed: bool) -> None:
    if transposed and stride > kernel:
        stride = kernel
    torch.manual_seed(kernel)
    flat, deep = (kind(2, 3, kernel, stride=stride).double() for kind in KINDS[transposed])
    with torch.no_grad():
        flat.weight.copy_(other_dimension(deep.weight, flat, "centred", "sum"))
        flat.bias.copy_(deep.bias)
    picture = torch.randn(1, 2, 7, 7).double()
    volume = deep(picture[..., None].expand(1, 2, 7, 7, 40))
    inner = volume[..., kernel : kernel + stride]  # a slice of each phase of a transposed one
    torch.testing.assert_close(flat(picture), inner.mean(-1))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_there_and_back(transposed: bool, kernel: int) -> None:
    flat, deep = (kind(2, 3, kernel, stride=1) for kind in KINDS[transposed])
    grown = other_dimension(flat.weight, deep, "centred", "sum")
    for how in ("sum", "centre"):
        torch.testing.assert_close(other_dimension(grown, flat, "centred", how), flat.weight)


def test_centre_by_hand() -> None:
    odd, even = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert flatten_kernel(odd, how="centre") == 2
    assert flatten_kernel(even, how="centre") == 3
    assert flatten_kernel(odd) == 7
    assert flatten_kernel(even, stride=2, transposed=True) == 7.5


def test_the_same_dimension_is_left_alone() -> None:
    weight = torch.randn(2, 2, 3, 3)
    assert other_dimension(weight, nn.Conv2d(2, 2, 3), "centred", "sum") is weight
