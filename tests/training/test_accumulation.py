"""Gradients that add up over batches before a step: which iterations are steps, and that they equal larger batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ignite.handlers import EMAHandler
from monai.engines import SupervisedTrainer
from torch import nn

from medseg_ext.training import ClipGradients, UpdateAverage
from medseg_ext.training.accumulation import completed_steps, completes_step


def engine(iteration: int, count: int, length: int | None) -> SimpleNamespace:
    return SimpleNamespace(
        accumulation_steps=count, state=SimpleNamespace(iteration=iteration, epoch_length=length, output=None)
    )


def test_steps_by_hand() -> None:
    """Epochs of five batches, two a step: the fifth is a step by itself."""
    engines = [engine(iteration, 2, 5) for iteration in range(1, 11)]
    assert [completes_step(one) for one in engines] == [False, True, False, True, True] * 2
    assert [completed_steps(one) for one in engines] == [1, 1, 2, 2, 3, 4, 4, 5, 5, 6]
    assert [completes_step(engine(iteration, 3, None)) for iteration in range(1, 7)] == [False, False, True] * 2
    assert [completed_steps(engine(iteration, 3, None)) for iteration in range(1, 7)] == [1, 1, 1, 2, 2, 2]


def test_without_accumulation_every_iteration_is_a_step() -> None:
    assert all(completes_step(engine(iteration, 1, 4)) for iteration in range(1, 9))
    assert [completed_steps(engine(iteration, 1, 4)) for iteration in range(1, 9)] == list(range(1, 9))
    assert completes_step(SimpleNamespace(state=SimpleNamespace(iteration=3, epoch_length=4)))  # of another engine


def train(batches: list[torch.Tensor], count: int, norm: float = 100.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and averaged weights after two epochs on these images, whose label is their sum and one."""
    network = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(network.weight)
    average = EMAHandler(network, momentum=0.2)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=[{"image": batch, "label": batch.sum(1, keepdim=True) + 1} for batch in batches],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=nn.MSELoss(),
        accumulation_steps=count,
        train_handlers=[ClipGradients(network, norm), UpdateAverage(average, warmup_iterations=3)],
    ).run()
    return network.weight.detach()[0], average.ema_model.weight.detach()[0]


@pytest.mark.parametrize("norm", [100.0, 0.7])
def test_three_batches_a_step_are_one_of_three_times_the_size(norm: float) -> None:
    """Clipping scales their sum, and the average moves once a step."""
    torch.manual_seed(0)
    batches = list(torch.randn(6, 4, 2, dtype=torch.float64))
    large = [torch.cat(batches[:3]), torch.cat(batches[3:])]
    for found, expected in zip(train(batches, 3, norm), train(large, 1, norm), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (train(batches, 1, norm)[0] - train(large, 1, norm)[0]).abs().max() > 1e-3
