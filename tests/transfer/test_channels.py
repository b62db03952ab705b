"""Channels by hand, and by what a convolution says of an image."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from medseg_ext.networks.space_to_depth import depth_to_space, space_to_depth
from medseg_ext.transfer.channels import (
    INPUT_MODES,
    ChannelLayout,
    input_mixing,
    input_names_matrix,
    mix,
    output_mixing,
)


def test_names_by_hand() -> None:
    assert input_names_matrix(["b", "a"], ["a", "b"], "name").tolist() == [[0, 1], [1, 0]]
    # a third sequence: the mean of the two, and all times two thirds
    expected = torch.tensor([[1, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64) * 2 / 3
    torch.testing.assert_close(input_names_matrix(["a", "b", "c"], ["a", "b"], "name"), expected)
    torch.testing.assert_close(input_names_matrix(["a"], ["a", "b"], "name"), torch.tensor([[2.0, 0.0]]).double())
    torch.testing.assert_close(input_names_matrix(["x", "y"], ["a"], "mean"), torch.tensor([[0.5], [0.5]]).double())
    repeated = torch.tensor([[0.5, 0], [0, 1], [0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(input_names_matrix(["a", "b", "c"], ["a", "b"], "repeat"), repeated)


@pytest.mark.parametrize("mode", INPUT_MODES)
@pytest.mark.parametrize("target", [["t1"], ["flair", "t1"], ["t1", "t2", "flair", "t1ce"]])
def test_activations_keep_their_size(mode: str, target: list[str]) -> None:
    source = ["t1", "flair", "t1ce"]
    matrix = input_names_matrix(target, source, mode)
    assert matrix.sum() == pytest.approx(3)
    if mode == "mean" or len(target) > 3:  # no sequence is left out: exact where all show the same
        torch.testing.assert_close(matrix.sum(0), torch.ones(3).double())
        weight, image = torch.randn(5, 3, 3, 3).double(), torch.randn(1, 1, 8, 8).double()
        theirs = nn.functional.conv2d(image.expand(1, 3, 8, 8), weight)
        ours = nn.functional.conv2d(image.expand(1, len(target), 8, 8), mix(weight, matrix, 1))
        torch.testing.assert_close(ours, theirs)


def test_places_are_those_of_the_stem() -> None:
    """A volume whose voxels are their own numbers."""
    numbers = torch.arange(2 * 4 * 4 * 4).reshape(1, 2, 4, 4, 4)
    blocks = space_to_depth(numbers, 2)[0, :, 0, 0, 0].tolist()
    places = ChannelLayout(("a", "b"), 3, 2).places
    assert blocks == [int(numbers[0, c, i, j, k]) for _, c, (i, j, k) in places]
    flat = nn.functional.pixel_unshuffle(numbers[..., 0], 2)[0, :, 0, 0].tolist()
    assert flat == [int(numbers[0, c, i, j, 0]) for _, c, (i, j) in ChannelLayout(("a", "b"), 2, 2).places]


@pytest.mark.parametrize("source_dims", [2, 3])
def test_inputs_of_the_other_dimension(source_dims: int) -> None:
    """Where the slices are alike, a pointwise convolution behind the stem says the same."""
    names = ("a", "b", "c")
    picture = torch.randn(1, 3, 4, 4).double()
    volume = picture[..., None].expand(1, 3, 4, 4, 4)
    blocks = {2: nn.functional.pixel_unshuffle(picture, 2), 3: space_to_depth(volume, 2)[..., 0]}
    target_dims = 5 - source_dims
    weight = torch.randn(5, blocks[source_dims].shape[1]).double()
    mixing = input_mixing(ChannelLayout(names, target_dims, 2), ChannelLayout(names, source_dims, 2))
    wanted = torch.einsum("oc,bchw->bohw", weight, blocks[source_dims])
    torch.testing.assert_close(torch.einsum("oc,bchw->bohw", mix(weight, mixing, 1), blocks[target_dims]), wanted)


def test_outputs_of_the_other_dimension() -> None:
    deep, flat = ChannelLayout(("tc", "wt"), 3, 2), ChannelLayout(("wt",), 2, 2)
    said = torch.randn(1, 4, 1, 1).double()  # of the blocks of a flat network
    grown = mix(said, output_mixing(deep, flat), 1)
    volume = depth_to_space(grown[..., None], 2)
    assert torch.equal(volume[:, 0], torch.zeros_like(volume[:, 0]))
    for k in range(2):
        assert torch.equal(volume[:, 1, :, :, k], nn.functional.pixel_shuffle(said, 2)[:, 0])
    back = mix(grown, output_mixing(flat, deep), 1)
    torch.testing.assert_close(back, said)


def test_neighbouring_slices() -> None:
    one, three = ChannelLayout(("a",), 2), ChannelLayout.of(["a"], 3, 2, 1)
    assert three.steps == 3
    assert input_mixing(one, three).tolist() == [[1, 1, 1]]
    assert input_mixing(three, one).tolist() == [[0], [1], [0]]
    five = ChannelLayout.of(["a"], 5, 2, 1)
    assert input_mixing(three, five).tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"10 channels, no odd multiple of 3 names x 2\^2"):
        ChannelLayout.of(["a", "b", "c"], 10, 2, 2)
    with pytest.raises(ValueError, match=r"32 channels, no odd multiple of 4 names x 2\^2"):
        ChannelLayout.of("abcd", 32, 2, 2)  # a slab of two slices, which counts them within each sequence
    with pytest.raises(ValueError, match="several slices side by side"):
        output_mixing(ChannelLayout(("a",), 2), ChannelLayout(("a",), 2, steps=3))
    with pytest.raises(ValueError, match="blocks of 1 where the network has 2"):
        input_mixing(ChannelLayout(("a",), 2, 2), ChannelLayout(("a",), 2, 1))


def test_mixing_against_loops() -> None:
    target, source = ChannelLayout(("b", "a"), 3, 2), ChannelLayout(("a", "b"), 2, 2)
    mixing = input_mixing(target, source)
    for (c, i, j, k), (d, m, n) in itertools.product(
        itertools.product(range(2), repeat=4), itertools.product(range(2), repeat=3)
    ):
        ours, theirs = ((c * 2 + i) * 2 + j) * 2 + k, (d * 2 + m) * 2 + n
        assert mixing[ours, theirs] == (0.5 if (c != d and (i, j) == (m, n)) else 0)
