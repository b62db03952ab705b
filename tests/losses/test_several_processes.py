"""Two processes with half a batch each have the value and the gradient of one with the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from several_processes import run_in_processes
from torch import nn

from medseg_ext import losses
from medseg_ext.losses.processes import gather_batch, sum_over_processes
from medseg_ext.processes import process_rank

BATCH, CHANNELS = 4, 3
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "region dice": lambda: losses.RegionDiceBCELoss(),
    "region dice, sum, no smoothing": lambda: losses.RegionDiceBCELoss(smooth=0.0, reduction="sum"),
    "region dice, all known": lambda: losses.RegionDiceBCELoss(ignore_value=None),
    "marginal": lambda: losses.MarginalRegionLoss(unions={3: [1, 2]}),
    "focal tversky, batch": lambda: losses.FocalTverskyLoss(sigmoid=True, batch=True),
    "focal tversky": lambda: losses.FocalTverskyLoss(sigmoid=True),
    "log-cosh dice, batch": lambda: losses.LogCoshDiceLoss(sigmoid=True, batch=True),
    "log-cosh dice": lambda: losses.LogCoshDiceLoss(sigmoid=True),
    "lovasz, batch": lambda: losses.LovaszHingeLoss(batch=True),
    "lovasz": lambda: losses.LovaszHingeLoss(),
}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(2, CHANNELS, 3, padding=1).double()


def batch(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and truth. What samples know differs, so that means over processes are no mean over samples."""
    torch.manual_seed(2)
    image = torch.randn(BATCH, 2, 6, 5, dtype=torch.float64)
    if name == "marginal":
        truth = torch.randint(0, CHANNELS, (BATCH, 1, 6, 5)).double()
        truth[0] = torch.where(truth[0] > 0, 3, 0)  # only the union is known
        truth[1, :, :3] = -1
        return image, truth
    truth = (torch.rand(BATCH, CHANNELS, 6, 5) < torch.tensor([0.1, 0.5, 0.8, 0.0]).view(-1, 1, 1, 1)).double()
    if name in {"region dice", "region dice, sum, no smoothing", "lovasz", "lovasz, batch"}:
        truth[:2, 0] = -1  # known to the second process alone
        truth[:, 2] = -1  # known to none
        truth[0, 1, :2] = -1
    return image, truth


def loss_and_gradient(name: str, model: nn.Module, image: torch.Tensor, truth: torch.Tensor) -> tuple[float, list]:
    model.zero_grad()
    loss = LOSSES[name]()(model(image), truth)
    loss.backward()
    return loss.item(), [parameter.grad.tolist() for parameter in model.parameters()]


def of_half_the_batch() -> dict[str, tuple[float, list]]:
    """In one of two processes: value, and the gradient after DistributedDataParallel's exchange, of each loss."""
    half = slice(process_rank() * BATCH // 2, (process_rank() + 1) * BATCH // 2)
    results = {}
    for name in LOSSES:
        model = nn.parallel.DistributedDataParallel(network())
        image, truth = batch(name)
        results[name] = loss_and_gradient(name, model, image[half], truth[half])
    share = torch.tensor([1.0 + process_rank(), 5.0], requires_grad=True)
    count = torch.tensor(2**24 + 1 if process_rank() else 1)  # one more than float32 knows
    total, counted = sum_over_processes(share, count)
    (total[0] ** 2).backward()
    results["sums by hand"] = (counted.item(), [total.tolist(), share.grad.tolist()])
    part = torch.full((1, 2), float(process_rank()), requires_grad=True)
    everything = gather_batch(part)
    (everything[0, 0] * 3 + everything[1, 1] * 5 * (1 + process_rank())).backward()
    results["batches by hand"] = (0.0, [everything.tolist(), part.grad.tolist()])
    return results


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run_in_processes(2, tmp_path_factory.mktemp("halves"), of_half_the_batch)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_whole_batch(name: str, halves: list[dict]) -> None:
    value, gradient = loss_and_gradient(name, network(), *batch(name))
    for half in halves:
        assert half[name][1] == halves[0][name][1], "the same in both processes"
        for found, expected in zip(half[name][1], gradient, strict=True):
            torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-10, atol=1e-12)
    if name in {"focal tversky", "log-cosh dice"}:  # each has the mean over its own samples
        assert (halves[0][name][0] + halves[1][name][0]) / 2 == pytest.approx(value, rel=1e-12)
    else:
        assert [half[name][0] for half in halves] == pytest.approx([value] * 2, rel=1e-12)


@pytest.mark.parametrize("name", ["region dice", "marginal", "focal tversky, batch", "lovasz"])
def test_a_mean_over_processes_would_be_another(name: str) -> None:
    """What DistributedDataParallel alone makes of a loss of the batch: so the test above says something."""
    image, truth = batch(name)
    halves = [loss_and_gradient(name, network(), image[part], truth[part])[1] for part in (slice(2), slice(2, 4))]
    mean = (torch.tensor(halves[0][0]) + torch.tensor(halves[1][0])) / 2
    whole = torch.tensor(loss_and_gradient(name, network(), image, truth)[1][0])
    assert (mean - whole).abs().max() > 0.01 * whole.abs().max()


def test_sums_by_hand(halves: list[dict]) -> None:
    """1 and 2 make 3; each process's loss is its square, whose slope 6 comes from both."""
    for half in halves:
        assert half["sums by hand"] == (2**24 + 2, [[3.0, 10.0], [12.0, 0.0]])


def test_batches_by_hand(halves: list[dict]) -> None:
    """The first losses are 3 a + 5 d and 3 a + 10 d of the batch ((a, b), (c, d))."""
    assert [half["batches by hand"][1][0] for half in halves] == [[[0, 0], [1, 1]]] * 2
    assert [half["batches by hand"][1][1] for half in halves] == [[[6, 0]], [[0, 15]]]


def test_one_process_sends_nothing() -> None:
    tensor = torch.ones(2, requires_grad=True)
    assert sum_over_processes(tensor)[0] is tensor
    assert gather_batch(tensor) is tensor
