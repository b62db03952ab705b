"""The step of a MONAI trainer, by hand."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from medseg_ext.training import ClipGradients


def step(norm: float, target: float = 2.0, steps: int = 1) -> torch.Tensor:
    """Weights after steps of SGD from 0 at the image (3, 4), whose loss is the square of what lacks to the target."""
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.tensor([[3.0, 4.0]]), "label": torch.tensor([[target]])}] * steps,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=nn.MSELoss(),
        train_handlers=[ClipGradients(network, norm)],
    ).run()
    return network.weight.detach()[0]


def test_a_step_by_hand() -> None:
    # the gradient is -2 * 2 * (3, 4), of norm 20
    torch.testing.assert_close(step(norm=100.0), torch.tensor([12.0, 16.0]))
    torch.testing.assert_close(step(norm=20.1), torch.tensor([12.0, 16.0]))
    torch.testing.assert_close(step(norm=0.5), torch.tensor([0.3, 0.4]))


@pytest.mark.parametrize("target", [-1e6, -2.0, -0.01, 0.0, 0.01, 2.0, 1e6])
def test_a_step_is_no_longer_than_the_norm(target: float) -> None:
    free = abs(10 * target)
    assert step(norm=0.5, target=target).norm().item() == pytest.approx(min(0.5, free), rel=1e-4)


def test_every_step_is_clipped() -> None:
    # 0.5 along (0.6, 0.8) brings the prediction 2.5 further, and the target is 10 away
    torch.testing.assert_close(step(norm=0.5, target=10.0, steps=3), torch.tensor([0.9, 1.2]))


def test_all_gradients_together() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    ClipGradients(network, 1.0).clip()  # four of 2 have norm 4
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 0.5))


def test_gradients_that_are_not_finite_change_nothing() -> None:
    network = torch.nn.Linear(2, 1)
    network.weight.grad, network.bias.grad = torch.tensor([[1.0, float("inf")]]), torch.ones(1)
    ClipGradients(network, 1.0).clip()
    assert network.weight.grad.tolist() == [[0, 0]]
    assert network.bias.grad.tolist() == [0]
