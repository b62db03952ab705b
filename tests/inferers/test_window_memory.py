"""What windows take: counted bytes, budgets by hand, limits of containers, and memory that runs out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from medseg_ext.errors import InputError, is_out_of_memory
from medseg_ext.inferers import BoxWindowInferer
from medseg_ext.inferers.window import budget
from medseg_ext.inferers.window.blend import Result
from medseg_ext.inferers.window.memory import (
    GIB,
    Footprint,
    LiveBytes,
    _container_memory,
    free_memory,
    measure_footprint,
)

CPU = torch.device("cpu")


def test_live_bytes_by_hand() -> None:
    outside = torch.zeros(256)
    with LiveBytes() as live:
        a = outside + 1  # 1024 bytes
        b = a + 1
        b.add_(1)
        view = b[:10]
        del a, b
        assert live.now == 1024  # the view keeps it
        del view
        assert live.now == 0
    assert live.peak == 2048


def test_live_bytes_see_through_torchscript() -> None:
    network = torch.jit.script(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 2)))
    x = torch.zeros(4, 8)
    with torch.no_grad(), LiveBytes() as live:
        network(x)
    assert live.peak >= 4 * 64 * 4


def test_the_footprint_of_a_convolution() -> None:
    network = nn.Conv3d(2, 3, 1)

    def run(size: tuple[int, ...]) -> torch.Tensor:
        with torch.no_grad():
            return network(torch.zeros(1, 2, *size))

    # two float32 channels in and three out
    assert measure_footprint(run, (8, 8, 8)) == Footprint(20.0, 0.0, 3)


def test_weights_in_another_type_count_once() -> None:
    weight = torch.zeros(1000, dtype=torch.float64)

    def run(size: tuple[int, ...]) -> torch.Tensor:
        copy = weight.float()  # 4000 bytes whatever the window
        return torch.zeros(1, 5, *size) + copy[0]

    footprint = measure_footprint(run, (8, 8))
    assert footprint.fixed == pytest.approx(4000, abs=8)
    assert footprint.bytes_per_voxel == pytest.approx(40)  # zeros and the sum


def test_voxels_within_a_budget_by_hand() -> None:
    footprint = Footprint(bytes_per_voxel=100, fixed=1000, classes=2)
    # one pass of 500 voxels takes 51000; afterwards result (8 x 1000) and logits (8 x 500) lie side by side
    assert footprint.most_voxels(51000, 500, 1000) == 500
    # less, and the result is there while the next window is computed: (50999 - 1000 - 8000) / 100
    assert footprint.most_voxels(50999, 500, 1000) == pytest.approx(419.99)
    # a result of 400,000 leaves nothing: windows get a quarter of the budget all the same
    assert Footprint(100, 0, 100).most_voxels(300_000, 5000, 1000) == pytest.approx(750)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Failed to allocate memory for image."), True),
        (OSError(12, "Cannot allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_limits_of_containers(tmp_path: Path) -> None:
    assert _container_memory(tmp_path) == []
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert _container_memory(tmp_path) == [450]
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_memory(tmp_path) == []
    assert free_memory(CPU) > 0


def head(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_there_is_no_second_array_of_the_results_size() -> None:
    volume = head(1, 1, 48, 48, 48)
    classes, window = 4, 16
    network = nn.Conv3d(1, classes, 1)
    result = classes * 48**3 * 4
    one_window = classes * window**3 * 4
    inferer = BoxWindowInferer(window=window, overlap=0.5, amp=False)
    with LiveBytes() as live:
        inferer(volume, network)
    mask = 2 * 48**3  # bool, and what finding it takes
    assert live.peak <= result + mask + 4 * one_window
    with torch.no_grad(), LiveBytes() as monai:
        SlidingWindowInferer(window, overlap=0.5, mode="gaussian")(volume, network)
    assert monai.peak >= result + 48**3 * 4


class Recording(nn.Conv3d):
    """A network that remembers the sizes of its windows."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape[2:]))
        return super().forward(x)


def test_one_pass_where_it_fits_and_windows_within_the_budget_elsewhere() -> None:
    """A network that takes 20 bytes a voxel on a volume whose result takes 3 x 4 x 40**3 bytes."""
    volume = head(1, 2, 40, 40, 40)
    network = Recording(2, 3, 1)
    seen = network.seen
    options = {"divisor": 4, "amp": False}
    plain = BoxWindowInferer(memory_budget=1.0, **options)(volume, network)
    assert seen == [(32, 32, 32), (64, 32, 32), (40, 40, 40)]  # measured on two small ones first
    seen.clear()
    result = 3 * 4 * 40**3
    inferer = BoxWindowInferer(memory_budget=(result + 20 * 20_000) / GIB, **options)
    tiled = inferer(volume, network)
    assert len(seen) == 2 + 6 and all(n[0] * n[1] * n[2] <= 20_000 for n in seen[2:])
    torch.testing.assert_close(tiled, plain)
    seen.clear()
    inferer(volume, network)
    assert len(seen) == 6  # not measured again
    seen.clear()
    BoxWindowInferer(memory_budget=20 * 40**3 / GIB, bytes_per_voxel=20, **options)(volume, network)
    assert seen == [(40, 40, 40)]  # nor where it was declared


def test_a_result_beyond_the_budget_leaves_windows_of_some_size(caplog: pytest.LogCaptureFixture) -> None:
    volume = head(1, 1, 64, 64, 64)
    network = Recording(1, 30, 1)
    budget = 30 * 4 * 64**3 - 1  # the result takes one byte more
    inferer = BoxWindowInferer(divisor=4, memory_budget=budget / GIB, bytes_per_voxel=124, amp=False, skip_empty=False)
    with caplog.at_level(logging.WARNING):
        result = inferer(volume, network)
    assert "the result takes 0.03 GiB of a memory budget of 0.03 GiB; with 0.01 GiB for windows" in caplog.text
    assert network.seen[2:] == [(64, 40, 20)] * 8  # after measuring; not hundreds of the smallest
    where = (volume != 0).expand_as(result)
    with torch.no_grad():
        torch.testing.assert_close(result[where], network(volume)[where])


@pytest.mark.parametrize(("free", "measured"), [(2048, False), (2047, True), (1, True)])
def test_plenty_of_free_memory_needs_no_measuring(monkeypatch: pytest.MonkeyPatch, free: int, measured: bool) -> None:
    monkeypatch.setattr(budget, "default_budget", lambda device: free * 16.0**3)
    seen: list[tuple[int, ...]] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[2:]))
        return 2 * x

    BoxWindowInferer(divisor=4, amp=False)(head(1, 1, 16, 16, 16), network)
    assert (seen[0] == (32, 32, 32)) is measured
    assert (seen[-1] == (16, 16, 16)) is (free > 1)


class Limited(nn.Module):
    """A network that has memory for windows of so many voxels."""

    def __init__(self, most: int, error: type[BaseException] = torch.OutOfMemoryError) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)
        self.most = most
        self.error = error
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape[2:]))
        if x[0, 0].numel() > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.convolution(x)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
@pytest.mark.parametrize("window", [None, 16])
def test_windows_are_halved_until_they_fit(
    error: type[BaseException], window: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    volume = head(1, 1, 16, 12, 14)
    inferer = BoxWindowInferer(window=window, divisor=2, bytes_per_voxel=1, amp=False)
    network = Limited(800, error)
    with caplog.at_level(logging.WARNING):
        result = inferer(volume, network)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "out of memory on cpu with a window of 16 x 12 x 14" in caplog.text
    assert max(n[0] * n[1] * n[2] for n in network.seen[len(caplog.records) :]) <= 800
    last = network.seen[-1]
    expected = BoxWindowInferer(window=last, divisor=2, amp=False)(volume, network)
    torch.testing.assert_close(result, expected)
    # the next volume begins with what worked
    network.seen.clear()
    inferer(volume, network)
    assert set(network.seen) == {last}


def test_memory_that_runs_out_half_way_leaves_no_trace() -> None:
    volume = torch.zeros(1, 1, 24, 20, 6)
    volume[..., 1:23, 1:18, 1:5] = head(22, 17, 4)
    calls = []

    def network(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape[2:]))
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return 2 * x

    result = BoxWindowInferer(window=(12, 20, 8), divisor=4, amp=False)(volume, network)
    assert len(set(calls)) == 2
    inside = volume != 0
    torch.testing.assert_close(result[inside], 2 * volume[inside])
    box = torch.zeros_like(inside)
    box[..., 1:23, 1:21, :] = True
    assert (result[~box] == -20).all()


def test_too_little_for_the_smallest_window() -> None:
    with pytest.raises(InputError, match="memory: found too little memory on cpu for a window of 4 x 4 x 4, allowed"):
        BoxWindowInferer(divisor=2, bytes_per_voxel=1, amp=False)(head(1, 1, 9, 9, 9), Limited(5))


def test_a_fixed_window_is_not_halved() -> None:
    network = Limited(100)
    with pytest.raises(InputError, match="a window of 8 x 8 x 8"):
        BoxWindowInferer(window=8, fixed_window=True, amp=False)(head(1, 1, 9, 9, 9), network)
    assert set(network.seen) == {(8, 8, 8)}


def test_other_errors_of_the_network_pass() -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        BoxWindowInferer(window=8)(head(1, 1, 9, 9, 9), network)


def test_too_little_to_try_the_network_in() -> None:
    with pytest.raises(InputError, match="memory: found too little memory on cpu to try the network in"):
        BoxWindowInferer(divisor=2, memory_budget=1, amp=False)(head(1, 1, 9, 9, 9), Limited(5))


def test_a_result_without_room_goes_to_host_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The meta device plays a GPU that is full."""
    full = torch.full

    def scarce(*args: object, device: torch.device = CPU, **kwargs: object) -> torch.Tensor:
        if device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return full(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "full", scarce)
    result = Result(2, (3, 4), -20.0, torch.device("meta"))
    assert result.volume(1, 5).shape == (5, 3, 4)
    assert result.device == CPU
    assert "out of memory on meta: the result of 3 x 4 is kept in host memory" in caplog.text


def test_the_result_goes_to_host_memory_when_windows_cannot_shrink(caplog: pytest.LogCaptureFixture) -> None:
    inferer = BoxWindowInferer(divisor=4)
    result = Result(1, (8, 8), -20.0, torch.device("meta"))
    gpu = torch.device("meta")
    inferer._give_way((16, 8), result, gpu, torch.OutOfMemoryError())
    assert result.device == gpu and "trying windows of 64 voxels" in caplog.text
    inferer._give_way((8, 8), result, gpu, torch.OutOfMemoryError())
    assert result.device == CPU and "host memory" in caplog.text
    with pytest.raises(InputError, match="too little memory on meta"):
        inferer._give_way((8, 8), result, gpu, torch.OutOfMemoryError())
