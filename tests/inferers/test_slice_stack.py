"""The slice-wise inferer against a loop written out, and on grids small enough to read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg_ext.inferers import AutocastInferer, SliceStackInferer
from medseg_ext.inferers.slice_stack import OUTSIDE_LOGIT

WHOLE = {"margin": 1000, "divisor": 1, "tolerance": 1e9, "amp": False}
OUT = OUTSIDE_LOGIT


def small_network(channels: int, classes: int = 2) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, classes, 3, padding=1).eval()


def random_volumes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written_out(volume: torch.Tensor, network: nn.Module, neighbours: int) -> torch.Tensor:
    """Each whole slice with its neighbours, one after the other."""
    depth = volume.shape[-1]
    slices = []
    for s in range(depth):
        channels = []
        for step in range(-neighbours, neighbours + 1):
            index = s + step
            if index < 0:
                index = 0
            if index > depth - 1:
                index = depth - 1
            channels += [volume[c, :, :, index] for c in range(volume.shape[0])]
        with torch.no_grad():
            slices.append(network(torch.stack(channels)[None])[0])
    return torch.stack(slices, -1)


@pytest.mark.parametrize("neighbours", [0, 1, 2])
@pytest.mark.parametrize("shape", [(7, 9, 5), (1, 1, 1), (4, 3, 2), (5, 8, 1)])
def test_the_loop_written_out(shape: tuple[int, int, int], neighbours: int) -> None:
    volumes = random_volumes(2, 3, *shape)
    network = small_network(3 * (2 * neighbours + 1))
    result = SliceStackInferer(neighbours=neighbours, batch_size=3, **WHOLE)(volumes, network)
    assert result.shape == (2, 2, *shape)
    assert result.dtype == torch.float32
    for volume, logits in zip(volumes, result, strict=True):
        torch.testing.assert_close(logits, written_out(volume, network, neighbours), atol=1e-5, rtol=0)


def test_four_by_four() -> None:
    """The head is the two by two in the middle; the network doubles."""
    rows = [[-1.0, -1.0, -1.0, -1.0], [-1.0, 0.5, 1.0, -1.0], [-1.0, 1.5, -0.5, -1.0], [-1.0, -1.0, -1.0, -1.0]]
    volume = torch.tensor(rows)[None, None, :, :, None]
    options = {"neighbours": 0, "divisor": 1, "tolerance": 1e9, "amp": False}
    tight = SliceStackInferer(margin=0, **options)(volume, lambda x: 2 * x)
    assert tight[0, 0, :, :, 0].tolist() == [[OUT] * 4, [OUT, 1, 2, OUT], [OUT, 3, -1, OUT], [OUT] * 4]
    wide = SliceStackInferer(margin=1, **options)(volume, lambda x: 2 * x)
    assert wide[0, 0, :, :, 0].tolist() == [[2 * value for value in row] for row in rows]


def test_neighbours_are_channels() -> None:
    """Slice s holds 10 * s and 10 * s + 1 in its two channels; the outermost stands in for what is missing."""
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.extend(x[:, :, 0, 0].tolist())
        return x[:, :1]

    volume = torch.tensor([[0.0, 10.0, 20.0], [1.0, 11.0, 21.0]])[None, :, None, None, :]
    SliceStackInferer(neighbours=1, **WHOLE)(volume, network)
    assert seen == [[0, 1, 0, 1, 10, 11], [0, 1, 10, 11, 20, 21], [10, 11, 20, 21, 20, 21]]


def test_padding_is_air_and_is_cut_off() -> None:
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x[:, :1]

    volume = torch.full((1, 2, 5, 6, 2), -3.0)
    volume[0, 1] = -2.0
    volume[0, :, 1:4, 1:5] = 1.0
    result = SliceStackInferer(neighbours=0, divisor=4, margin=1, tolerance=1e9, amp=False)(volume, network)
    assert seen[0].shape == (2, 2, 8, 8)
    assert (seen[0][:, 0, 5:] == -3).all()
    assert (seen[0][:, 1, :, 6:] == -2).all()
    assert torch.equal(result[:, 0], volume[:, 0])


def test_the_box_changes_no_pixel_inside() -> None:
    """A network that looks at single pixels gives the same in the head with and without the box."""
    volume = torch.full((1, 3, 20, 16, 3), -1.0)
    volume[0, :, 5:15, 4:12] = random_volumes(3, 10, 8, 3).abs()
    torch.manual_seed(1)
    network = nn.Conv2d(9, 2, 1)
    boxed = SliceStackInferer(margin=2, divisor=8, tolerance=1e9, amp=False)(volume, network)[0]
    whole = written_out(volume[0], network, 1)
    torch.testing.assert_close(boxed[:, 3:17, 2:14], whole[:, 3:17, 2:14], atol=1e-5, rtol=0)
    outside = torch.ones(20, 16, dtype=torch.bool)
    outside[3:17, 2:14] = False
    assert (boxed[:, outside] == OUT).all()


def test_one_volume_never_touches_another() -> None:
    near, far = torch.full((2, 3, 12, 12, 2), -1.0)
    near[:, 1:5, 1:5] = 1.0
    far[:, 7:11, 6:10] = 2.0
    network = small_network(9)
    inferer = SliceStackInferer(margin=1, divisor=4, tolerance=1e9, amp=False)
    both = inferer(torch.stack([near, far]), network)
    assert torch.equal(both[0], inferer(near[None], network)[0])
    assert torch.equal(both[1], inferer(far[None], network)[0])


def test_a_volume_of_air() -> None:
    result = SliceStackInferer(amp=False, divisor=4, tolerance=1e9)(torch.zeros(1, 3, 6, 5, 2), small_network(9))
    assert result.shape == (1, 2, 6, 5, 2)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 50), (16, 16), (12, 16)])
def test_another_matrix_is_resampled_and_put_back(height: int, width: int) -> None:
    """As 512 and 128 are to a network of 256 x 256, with a head of half the size and a blob in it."""
    sizes = []

    def network(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape[2:]))
        return x[:, :1] - 1.5

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    head = ((rows / height - 0.5).abs() < 0.35) & ((columns / width - 0.5).abs() < 0.35)
    blob = ((rows / height - 0.4).abs() < 0.15) & ((columns / width - 0.55).abs() < 0.2)
    volume = (head.float() + 2 * blob.float() - 1)[None, None, :, :, None].repeat(1, 1, 1, 1, 2)
    result = SliceStackInferer(neighbours=0, matrix=32, divisor=1, margin=100, amp=False)(volume, network)
    ratio = 32 / max(height, width)
    assert sizes == [(round(height * ratio), round(width * ratio))]
    assert result.shape == (1, 1, height, width, 2)
    found = result[0, 0, :, :, 0] > -0.5  # half-way between blob and head
    overlap = 2 * (found & blob).sum() / (found.sum() + blob.sum())
    assert overlap > 0.85
    middle = [indices.float().mean() for indices in blob.nonzero(as_tuple=True)]
    found_middle = [indices.float().mean() for indices in found.nonzero(as_tuple=True)]
    for axis, place in enumerate(middle):
        assert abs(found_middle[axis] - place) < 0.02 * (height, width)[axis]


@pytest.mark.parametrize("threads", [1, 2])
def test_air_of_a_resampled_slice_is_no_head(threads: int) -> None:
    """Of -2.3571 the resampled air is in part -2.35709977: more than the least, by rounding that threads decide."""
    sizes = []

    def network(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape[2:]))
        return x[:, :1]

    volume = torch.full((1, 3, 160, 160, 4), -2.3571)
    volume[:, :, 40:120, 50:110] = 1.0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        SliceStackInferer(neighbours=0, matrix=256, divisor=1, margin=0, amp=False)(volume, network)
    finally:
        torch.set_num_threads(before)
    # 80 and 60 pixels are 128 and 96 in a matrix of 256, and a pixel at each end is part head
    assert sizes == [(130, 98)]


@pytest.mark.parametrize(("height", "resampled"), [(40, False), (41, True), (24, False), (23, True)])
def test_the_matrix_may_differ_by_a_quarter(height: int, resampled: bool) -> None:
    sizes = []

    def network(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.shape[2])
        return x[:, :1]

    SliceStackInferer(neighbours=0, matrix=32, divisor=1, margin=100, amp=False)(
        torch.ones(1, 1, height, 8, 1), network
    )
    assert sizes == [32 if resampled else height]


def test_mirror_is_the_average_of_both() -> None:
    volume, network = random_volumes(1, 3, 6, 7, 3), small_network(9)
    plain = SliceStackInferer(**WHOLE)(volume, network)
    flipped = SliceStackInferer(**WHOLE)(volume.flip(3), network).flip(3)
    both = SliceStackInferer(mirror=True, **WHOLE)(volume, network)
    torch.testing.assert_close(both, (plain + flipped) / 2, atol=1e-5, rtol=0)
    assert not torch.allclose(plain, flipped, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    depth=st.integers(1, 6),
    batch_size=st.integers(1, 7),
    neighbours=st.integers(0, 2),
    margin=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_the_batch_size_changes_nothing(
    height: int, width: int, depth: int, batch_size: int, neighbours: int, margin: int, seed: int
) -> None:
    volume = random_volumes(1, 1, height, width, depth, seed=seed).clamp_min(0.5)
    network = small_network(2 * neighbours + 1, classes=1)
    options = {"neighbours": neighbours, "margin": margin, "divisor": 4, "tolerance": 1e9, "amp": False}
    result = SliceStackInferer(batch_size=batch_size, **options)(volume, network)
    assert result.shape == volume.shape
    torch.testing.assert_close(
        result, SliceStackInferer(batch_size=depth, **options)(volume, network), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 4, 4, 4)])
@pytest.mark.parametrize("amp", [False, True])
def test_mixed_precision_returns_float32(shape: tuple[int, ...], amp: bool) -> None:
    torch.manual_seed(0)
    network = (nn.Conv2d if len(shape) == 4 else nn.Conv3d)(3, 2, 1)
    x = random_volumes(*shape)
    result = AutocastInferer(amp)(x, network)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, network(x), atol=0.05 if amp else 1e-5, rtol=0)


def test_each_group_of_slices_has_its_own_box() -> None:
    """A head of 12 rows in the first two slices and of 3 in the last two: the network sees as much of each."""
    volume = torch.zeros(1, 1, 16, 8, 4)
    volume[:, :, 2:14, :, :2] = 1.0
    volume[:, :, 6:9, :, 2:] = 1.0
    seen = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(batch.shape))
        return batch[:, 1:2]  # the slice itself, of previous, this and next

    inferer = SliceStackInferer(neighbours=1, box_slices=2, divisor=1, margin=0, tolerance=1e9, amp=False)
    result = inferer(volume, network)
    assert seen == [(2, 3, 12, 8), (2, 3, 3, 8)]
    assert torch.equal(result == OUTSIDE_LOGIT, volume == 0)
    assert torch.equal(result[volume == 1], torch.ones(int(volume.sum())))


def test_boxes_are_no_smaller_than_what_the_network_knows() -> None:
    volume = torch.zeros(1, 1, 20, 16, 1)
    volume[..., 1:4, 8:10, :] = 1.0
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[2:]))
        return x

    def shape(rows: int, columns: int) -> tuple[int, ...]:
        options = {"neighbours": 0, "divisor": 1, "margin": 1, "tolerance": 1e9, "amp": False}
        result = SliceStackInferer(smallest_box=(rows, columns), **options)(volume, network)
        assert torch.equal((result > 0), volume > 0)
        return seen[-1]

    assert shape(0, 0) == (5, 4)
    assert shape(8, 6) == (8, 6)
    assert shape(100, 6) == (20, 6)
