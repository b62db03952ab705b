"""The box-window inferer against loops written out, on grids small enough to read, and beside MONAI's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from medseg_ext.inferers import BoxWindowInferer
from medseg_ext.inferers.window import inferer as inferer_module

OUT = -20.0
PLAIN = {"amp": False, "progress": False}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_volumes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolution(channels: int, classes: int, axes: int) -> nn.Module:
    """Sees a voxel's neighbours and the window's rim, so that it matters where windows lie."""
    torch.manual_seed(channels + classes)
    return (nn.Conv2d if axes == 2 else nn.Conv3d)(channels, classes, 3, padding=1)


# On grids of 4 x 4


def place_in_window(x: torch.Tensor) -> torch.Tensor:
    """Ten times the row plus the column, counted from the window's corner."""
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in x.shape[2:]), indexing="ij")
    return (10 * rows + columns).expand_as(x[:, :1])


def test_four_by_four_constant() -> None:
    """Two windows of 4 x 3; the middle columns are means of both: of 1 and 0, and of 2 and 1."""
    image = torch.ones(1, 1, 4, 4)
    inferer = BoxWindowInferer(window=(4, 3), overlap=0.0, weights="constant", divisor=1, **PLAIN)
    row = [0, 0.5, 1.5, 2]
    assert inferer(image, place_in_window)[0, 0].tolist() == [[10 * i + x for x in row] for i in range(4)]


def test_four_by_four_gaussian() -> None:
    """Four windows of 3 x 3 with weights 1/2, 1, 1/2 an axis: 0, (1*1 + 0*.5) / 1.5, (2*.5 + 1*1) / 1.5, 2."""
    image = torch.ones(1, 1, 4, 4)
    sigma = 1 / (3 * math.sqrt(2 * math.log(2)))
    inferer = BoxWindowInferer(window=3, overlap=0.5, sigma=sigma, divisor=1, **PLAIN)
    expected = [
        [0, 2 / 3, 4 / 3, 2],
        [20 / 3, 22 / 3, 8, 26 / 3],
        [40 / 3, 14, 44 / 3, 46 / 3],
        [20, 62 / 3, 64 / 3, 22],
    ]
    torch.testing.assert_close(inferer(image, place_in_window)[0, 0], torch.tensor(expected))


def test_four_by_four_box() -> None:
    """The head is two by two; nothing else is given to the network."""
    image = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1, -2], [0, 0, 3, 0], [0, 0, 0, 0]])[None, None]
    seen = []

    def double(x: torch.Tensor) -> torch.Tensor:
        seen.append(x[0, 0].tolist())
        return 2 * x

    result = BoxWindowInferer(divisor=1, bytes_per_voxel=1, **PLAIN)(image, double)
    assert seen == [[[1, -2], [3, 0]]]
    assert result[0, 0].tolist() == [[OUT] * 4, [OUT, OUT, 2, -4], [OUT, OUT, 6, 0], [OUT] * 4]
    wide = BoxWindowInferer(divisor=1, margin=1, bytes_per_voxel=1, **PLAIN)(image, double)
    assert wide[0, 0].tolist() == [[OUT, 0, 0, 0], [OUT, 0, 2, -4], [OUT, 0, 6, 0], [OUT, 0, 0, 0]]


def test_four_by_four_empty_windows() -> None:
    """Of four windows of 2 x 2 the two without head are not computed."""
    image = torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7]])[None, None]
    seen = []

    def plus_one(x: torch.Tensor) -> torch.Tensor:
        seen.append(x[0, 0].tolist())
        return x + 1

    inferer = BoxWindowInferer(window=2, overlap=0.0, divisor=1, **PLAIN)
    result = inferer(image, plus_one)[0, 0].tolist()
    assert seen == [[[5, 0], [0, 0]], [[0, 0], [0, 7]]]
    assert result == [[6, 1, OUT, OUT], [1, 1, OUT, OUT], [OUT, OUT, 1, 1], [OUT, OUT, 1, 8]]


def test_padding_is_air_and_is_cut_off() -> None:
    """Three rows and columns for a network that wants four: the box leaves the volume after the last."""
    image = torch.tensor([[[-1.0, 1, 2], [3, 4, 5], [6, 7, 8]], [[-2.0, 1, 1], [1, 1, 1], [1, 1, 1]]])[None]
    seen = []

    def first(x: torch.Tensor) -> torch.Tensor:
        seen.append(x[0].tolist())
        return x[:, :1]

    result = BoxWindowInferer(divisor=4, air=None, bytes_per_voxel=1, **PLAIN)(image, first)
    assert seen[0][0] == [[-1, 1, 2, -1], [3, 4, 5, -1], [6, 7, 8, -1], [-1, -1, -1, -1]]
    assert seen[0][1] == [[-2, 1, 1, -2], [1, 1, 1, -2], [1, 1, 1, -2], [-2, -2, -2, -2]]
    assert torch.equal(result[0, 0], image[0, 0])


# Written out


def written_out(
    volume: np.ndarray,
    network: nn.Module,
    window: tuple[int, ...],
    overlap: float,
    divisor: int,
    gaussian: bool,
    crop: bool,
    fixed: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """One volume, window by window and voxel by voxel; also which voxels lie in the box."""
    spatial = volume.shape[1:]
    first, last = [0] * len(spatial), list(spatial)
    if crop and (volume != 0).any():
        for axis in range(len(spatial)):
            planes = [i for i in range(spatial[axis]) if (np.take(volume, i, axis + 1) != 0).any()]
            first[axis], last[axis] = planes[0], planes[-1] + 1
    sizes = []
    for axis, wanted in enumerate(window):
        length = last[axis] - first[axis]
        needed = length
        while needed % divisor:
            needed += 1
        w = wanted if fixed else min(wanted, needed)
        sizes.append(w)
        room = max(w, length)  # what the windows cover
        if room > spatial[axis]:
            first[axis] = -((room - spatial[axis]) // 2)
        else:
            first[axis] -= (room - length) // 2
            while first[axis] < 0:
                first[axis] += 1
            while first[axis] + room > spatial[axis]:
                first[axis] -= 1
        last[axis] = first[axis] + room
    starts = []
    for axis, w in enumerate(sizes):
        room = last[axis] - first[axis]
        count = 1
        while room > w and (count == 1 or (room - w) / (count - 1) > max(1, w * (1 - overlap)) + 1e-9):
            count += 1
        starts.append(
            [first[axis] + math.floor(i * (room - w) / (count - 1) + 0.5) for i in range(count)]
            if count > 1
            else [first[axis]]
        )
    total, weight_sum = None, np.zeros(spatial)
    for corner in itertools.product(*starts):
        cut = np.zeros((len(volume), *sizes), np.float32)
        for offset in np.ndindex(*sizes):
            place = tuple(c + o for c, o in zip(corner, offset, strict=True))
            if all(0 <= p < n for p, n in zip(place, spatial, strict=True)):
                cut[(slice(None), *offset)] = volume[(slice(None), *place)]
        with torch.no_grad():
            logits = network(torch.from_numpy(cut)[None])[0].numpy()
        if total is None:
            total = np.zeros((len(logits), *spatial))
        for offset in np.ndindex(*sizes):
            place = tuple(c + o for c, o in zip(corner, offset, strict=True))
            if not all(0 <= p < n for p, n in zip(place, spatial, strict=True)):
                continue
            weight = 1.0
            if gaussian:
                for o, w in zip(offset, sizes, strict=True):
                    weight *= math.exp(-0.5 * ((o - (w - 1) / 2) / (0.125 * w)) ** 2)
            total[(slice(None), *place)] += weight * logits[(slice(None), *offset)]
            weight_sum[place] += weight
    assert total is not None
    inside = weight_sum > 0
    total[:, inside] /= weight_sum[inside]
    total[:, ~inside] = OUT
    return total, inside


def head_in_air(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Noise in a random box of the volume, with holes, and exact zeros around it."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(shape, np.float32)
    box = []
    for n in shape[1:]:
        a, b = sorted(rng.integers(0, n + 1, 2))
        box.append(slice(a, b + (a == b)))
    part = volume[(slice(None), *box)]
    part[...] = rng.standard_normal(part.shape) * (rng.random(part.shape[1:]) > 0.3)
    return torch.from_numpy(volume)


@settings(max_examples=40, deadline=None)
@given(
    spatial=st.one_of(st.tuples(*[st.integers(1, 11)] * 2), st.tuples(*[st.integers(1, 8)] * 3)),
    window=st.tuples(*[st.integers(1, 10)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.6]),
    divisor=st.integers(1, 4),
    gaussian=st.booleans(),
    crop=st.booleans(),
    fixed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_loops_written_out(
    spatial: tuple[int, ...],
    window: tuple[int, ...],
    overlap: float,
    divisor: int,
    gaussian: bool,
    crop: bool,
    fixed: bool,
    seed: int,
) -> None:
    window = window[: len(spatial)]
    volume = head_in_air((2, *spatial), seed)
    network = convolution(2, 3, len(spatial))
    expected, _ = written_out(volume.numpy(), network, window, overlap, divisor, gaussian, crop, fixed)
    inferer = BoxWindowInferer(
        window=window,
        overlap=overlap,
        weights="gaussian" if gaussian else "constant",
        divisor=divisor,
        fixed_window=fixed,
        crop=crop,
        skip_empty=False,
        **PLAIN,
    )
    result = inferer(volume[None], network)
    assert result.shape == (1, 3, *spatial)
    torch.testing.assert_close(result[0], torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    spatial=st.tuples(*[st.integers(1, 14)] * 3),
    window=st.integers(2, 9),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    seed=st.integers(0, 99),
)
def test_skipping_changes_no_voxel_of_the_head(
    spatial: tuple[int, int, int], window: int, overlap: float, seed: int
) -> None:
    volume = head_in_air((1, *spatial), seed)[None]
    network = convolution(1, 2, 3)
    options = {"window": window, "overlap": overlap, "divisor": 1, "crop": False, **PLAIN}
    computed = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        computed.append(x)
        return network(x)

    skipped = BoxWindowInferer(skip_empty=True, **options)(volume, counted)
    on = len(computed)
    full = BoxWindowInferer(skip_empty=False, **options)(volume, counted)
    assert on <= len(computed) - on
    where = (volume != 0).expand_as(full)
    torch.testing.assert_close(skipped[where], full[where], atol=1e-5, rtol=0)
    # in the air around it, either the same or a part of the skipped windows' value, which is lower
    assert (skipped <= full + 1e-4).all()


@settings(max_examples=25, deadline=None)
@given(
    spatial=st.tuples(*[st.integers(1, 30)] * 3),
    divisor=st.sampled_from([1, 2, 4]),
    voxels=st.integers(10, 20_000),
    seed=st.integers(0, 99),
)
def test_any_budget_gives_the_same_where_windows_do_not_matter(
    spatial: tuple[int, int, int], divisor: int, voxels: int, seed: int
) -> None:
    """A network that looks at single voxels."""
    volume = head_in_air((2, *spatial), seed)[None]
    torch.manual_seed(1)
    network = nn.Conv3d(2, 3, 1)
    with torch.no_grad():
        whole = network(volume)
    budget = (20 * voxels + 12 * math.prod(spatial)) / 1024**3
    inferer = BoxWindowInferer(divisor=divisor, memory_budget=budget, skip_empty=False, **PLAIN)
    result = inferer(volume, network)
    where = (volume != 0).any(1, keepdim=True).expand_as(result)
    torch.testing.assert_close(result[where], whole[where], atol=1e-4, rtol=0)


# Beside MONAI's


@pytest.mark.parametrize("shape", [(1, 2, 9, 12), (2, 1, 8, 10, 7)])
@pytest.mark.parametrize("window", [16, 12])
def test_one_window_equals_monai(shape: tuple[int, ...], window: int) -> None:
    volume, network = random_volumes(*shape), convolution(shape[1], 3, len(shape) - 2)
    with torch.no_grad():
        expected = SlidingWindowInferer(window, mode="constant")(volume, network)
    ours = BoxWindowInferer(window=window, fixed_window=True, crop=False, **PLAIN)(volume, network)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_constant_weights_equal_monai_where_steps_coincide(overlap: float) -> None:
    volume, network = random_volumes(1, 1, 16, 24, 8), convolution(1, 2, 3)
    with torch.no_grad():
        expected = SlidingWindowInferer(8, overlap=overlap, mode="constant")(volume, network)
    ours = BoxWindowInferer(window=8, overlap=overlap, weights="constant", crop=False, divisor=8, **PLAIN)
    torch.testing.assert_close(ours(volume, network), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_from_a_config_in_place_of_monais(dims: int) -> None:
    config = {"inferer": {"_target_": "medseg_ext.inferers.BoxWindowInferer", "divisor": 8, "memory_budget": 0.5}}
    inferer = ConfigParser(config).get_parsed_content("inferer")
    volume = random_volumes(1, 1, *[12] * dims)
    assert inferer(inputs=volume, network=convolution(1, 3, dims)).shape == (1, 3, *[12] * dims)


def test_a_meta_tensor_stays_one() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    volume = MetaTensor(random_volumes(1, 1, 8, 8, 8), affine=affine[None])
    result = BoxWindowInferer(**PLAIN)(volume, lambda x: x)
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, volume.affine)
    assert torch.equal(result.as_tensor(), volume.as_tensor())


# What else it promises


def test_every_volume_of_a_batch_by_itself() -> None:
    volumes = torch.zeros(3, 1, 20, 16, 12)
    volumes[0, :, 2:9, 3:9, 1:7] = random_volumes(7, 6, 6)
    volumes[1, :, 10:18, 8:16, 5:12] = random_volumes(8, 8, 7, seed=1)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.Conv3d(4, 2, 1))
    inferer = BoxWindowInferer(divisor=2, **PLAIN)
    together = inferer(volumes, network)
    for volume, logits in zip(volumes[:2], together, strict=False):
        torch.testing.assert_close(inferer(volume[None], network)[0], logits)
    assert (together[2] == OUT).all()


@pytest.mark.parametrize("skip_empty", [True, False])
def test_a_volume_of_air(skip_empty: bool) -> None:
    """One small window is computed, to know how many classes there are."""
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[2:]))
        return x.new_zeros(1, 5, *x.shape[2:])

    volume = torch.zeros(2, 1, 20, 30, 10)
    result = BoxWindowInferer(window=20, divisor=4, skip_empty=skip_empty, **PLAIN)(volume, network)
    assert result.shape == (2, 5, 20, 30, 10)
    assert torch.isfinite(result).all()
    if skip_empty:
        assert seen == [(8, 8, 8)]


@pytest.mark.parametrize("classes", [1, 2, 40])
def test_any_number_of_classes(classes: int) -> None:
    result = BoxWindowInferer(window=8, divisor=8, **PLAIN)(random_volumes(1, 3, 9, 17, 8), convolution(3, classes, 3))
    assert result.shape == (1, classes, 9, 17, 8)


def test_mirroring_is_the_mean_over_all_combinations() -> None:
    volume, network = random_volumes(1, 1, 8, 6, 7), convolution(1, 2, 3)
    result = BoxWindowInferer(divisor=1, mirror_axes=(0, 2), crop=False, **PLAIN)(volume, network)
    with torch.no_grad():
        means = [network(volume.flip(f)).flip(f) for f in ([], [2], [4], [2, 4])]
    torch.testing.assert_close(result, sum(means) / 4, atol=1e-5, rtol=0)
    assert not torch.allclose(result, means[0], atol=1e-2)


def test_what_the_network_keeps_is_not_changed() -> None:
    volume = random_volumes(1, 2, 9, 9)
    before = volume.clone()
    kept = torch.ones(1, 1, 6, 6)

    def network(x: torch.Tensor) -> torch.Tensor:
        x.mul_(0)  # as an activation in place does
        return kept

    result = BoxWindowInferer(window=6, divisor=1, channels_last=False, **PLAIN)(volume, network)
    torch.testing.assert_close(result, torch.ones(1, 1, 9, 9))
    assert torch.equal(kept, torch.ones(1, 1, 6, 6))
    assert torch.equal(volume, before)


def test_further_arguments_go_to_the_network() -> None:
    def network(x: torch.Tensor, factor: float, shift: float) -> torch.Tensor:
        return factor * x + shift

    volume = random_volumes(1, 1, 6, 6)
    result = BoxWindowInferer(divisor=1, **PLAIN)(volume, network, 2.0, shift=1.0)
    torch.testing.assert_close(result, 2 * volume + 1)


def test_whole_numbers_are_computed_as_floats() -> None:
    volume = torch.arange(64).view(1, 1, 8, 8)
    result = BoxWindowInferer(divisor=4, **PLAIN)(volume, lambda x: x / 2)
    torch.testing.assert_close(result, volume / 2)


@pytest.mark.parametrize("device", DEVICES)
def test_devices_agree(device: str) -> None:
    """In float32 to 1e-4 of the logits' range, against double precision on the processor."""
    volume = random_volumes(1, 2, 20, 18, 14)
    network = nn.Sequential(convolution(2, 8, 3), nn.InstanceNorm3d(8), nn.ReLU(), convolution(8, 3, 3))
    options = {"window": 12, "overlap": 0.5, "divisor": 2, **PLAIN}
    exact = BoxWindowInferer(**options)(volume.double(), network.double()).float()
    result = BoxWindowInferer(**options)(volume.to(device), network.float().to(device))
    assert result.device.type == device
    span = float(exact.max() - exact.min())
    torch.testing.assert_close(result.cpu(), exact, atol=1e-4 * span, rtol=0)
    from_host = BoxWindowInferer(**options)(volume, network)  # windows go where the network is
    assert from_host.device.type == "cpu"
    torch.testing.assert_close(from_host, exact, atol=1e-4 * span, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_mixed_precision_stays_close(device: str) -> None:
    volume = random_volumes(1, 2, 16, 16, 16)
    network = nn.Sequential(convolution(2, 8, 3), nn.ReLU(), convolution(8, 3, 3)).to(device)
    exact = BoxWindowInferer(divisor=4, amp=False)(volume, network)
    mixed = BoxWindowInferer(divisor=4, amp=True)(volume, network)
    assert mixed.dtype == torch.float32
    assert float((mixed - exact).abs().max()) <= 0.02 * float(exact.max() - exact.min())


def test_no_gradients_are_kept() -> None:
    assert not BoxWindowInferer(**PLAIN)(random_volumes(1, 1, 8, 8), convolution(1, 1, 2)).requires_grad


def test_progress_of_long_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    volume = random_volumes(1, 1, 12, 12)
    BoxWindowInferer(window=4, divisor=1)(volume, lambda x: x)
    assert capsys.readouterr().err == ""  # too short for a bar
    monkeypatch.setattr(inferer_module, "_BAR_DELAY", 0)
    BoxWindowInferer(window=4, divisor=1, progress=False)(volume, lambda x: x)
    assert capsys.readouterr().err == ""
    BoxWindowInferer(window=4, divisor=1)(volume, lambda x: x)
    assert "windows:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: (x, x), "network: found a tuple returned, allowed one tensor"),
        (lambda x: x[..., ::2], r"network: found \(1, 1, 8, 4\) returned for a window of \(1, 1, 8, 8\), allowed"),
        (lambda x: x[0], r"found \(1, 8, 8\) returned"),
    ],
)
def test_outputs_that_do_not_fit_are_named(network: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxWindowInferer(window=8, **PLAIN)(random_volumes(1, 1, 8, 8), network)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, "overlap: found 1.0, allowed 0 or more, less than 1"),
        ({"weights": "mean"}, "weights: found 'mean'"),
        ({"window": (16, 0)}, "window: found"),
        ({"divisor": 0}, "divisor: found 0"),
        ({"sigma": 0}, "sigma: found 0"),
        ({"margin": -1}, "margin: found -1"),
        ({"memory_budget": 0}, "memory_budget: found 0"),
        ({"mirror_axes": (3,)}, "mirror_axes: found"),
        ({"fixed_window": True}, "fixed_window: found True, allowed False without a window"),
        ({"backend": "onnx"}, "backend: found 'onnx', allowed 'torch' or 'openvino'"),
    ],
)
def test_nonsense_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxWindowInferer(**options)  # type: ignore[arg-type]


def test_arguments_that_do_not_fit_the_inputs() -> None:
    with pytest.raises(ValueError, match="window: found 3 values, allowed one or 2"):
        BoxWindowInferer(window=(8, 8, 8))(torch.ones(1, 1, 8, 8), lambda x: x)
    with pytest.raises(ValueError, match=r"inputs: found shape \(1, 8, 8\)"):
        BoxWindowInferer()(torch.ones(1, 8, 8), lambda x: x)
