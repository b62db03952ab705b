"""The averaged weights, and that a training that is continued has the same."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from medseg_ext.training import UpdateAverage, keep_freed_memory


def train(iterations: int, start: int = 0, network: nn.Module | None = None, average: EMAHandler | None = None):
    """Each step sets the weight to the iteration's number."""
    network = network or nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(start)
    average = average or EMAHandler(network, momentum=0.1)

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.weight.fill_(engine.state.iteration)

    engine = Engine(step)

    @engine.on(Events.STARTED)
    def count_on(engine: Engine) -> None:
        engine.state.iteration = engine.state.epoch = start

    UpdateAverage(average, first_momentum=0.5, warmup_iterations=5).attach(engine)
    engine.run([0], max_epochs=start + iterations)
    return network, average


def test_the_average_by_hand() -> None:
    _, average = train(3)
    # momenta 0.5, 0.4 and 0.3: 0 -> 0.5 -> 0.6 * 0.5 + 0.4 * 2 = 1.1 -> 0.7 * 1.1 + 0.3 * 3
    assert average.ema_model.weight.item() == pytest.approx(1.67)


def test_a_continued_training_has_the_same_average() -> None:
    _, whole = train(7)
    network, average = train(2)
    train(5, 2, network, average)
    torch.testing.assert_close(average.ema_model.weight, whole.ema_model.weight)


def test_the_average_begins_with_what_a_handler_loaded() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = EMAHandler(network, momentum=0.1)  # has a copy of the random weights
    engine = Engine(lambda *_: None)

    @engine.on(Events.STARTED)
    def load(engine: Engine) -> None:
        with torch.no_grad():
            network.weight.fill_(3.0)

    UpdateAverage(average).attach(engine)
    engine.run([0], max_epochs=1)
    assert average.ema_model.weight.item() == 3.0


def test_after_the_warm_up_the_momentum_stays() -> None:
    _, average = train(30)
    value = 0.0
    for iteration in range(1, 31):
        momentum = max(0.1, 0.6 - 0.1 * iteration)
        value = (1 - momentum) * value + momentum * iteration
    assert average.ema_model.weight.item() == pytest.approx(value, rel=1e-5)


def test_freed_memory_is_kept_where_that_can_be_asked_for() -> None:
    assert keep_freed_memory() in {True, False}
