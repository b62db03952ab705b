"""Statistics that stay while all else learns."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch import nn

from medseg_ext.training import FixNormalization, set_batch_norm_momentum


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 1, 1))
    nn.init.constant_(made[1].running_mean, 3.0)
    nn.init.constant_(made[1].running_var, 4.0)
    return made


def start(network: nn.Module) -> None:
    """The start of a training, without a step."""
    engine = Engine(lambda engine, batch: None)
    FixNormalization(network).attach(engine)
    engine.run([0], max_epochs=1)


def statistics(network: nn.Sequential) -> tuple[list[float], list[float], int]:
    norm = network[1]
    return norm.running_mean.tolist(), norm.running_var.tolist(), int(norm.num_batches_tracked)


def test_statistics_stay_and_the_rest_learns() -> None:
    net = network()
    start(net)
    net.train()
    assert [module.training for module in net] == [True, False, True, True]
    net(torch.randn(4, 1, 5, 5)).square().sum().backward()
    assert statistics(net) == ([3.0, 3.0], [4.0, 4.0], 0)
    for parameter in net[1].parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).any()


def test_the_statistics_are_those_that_count() -> None:
    norm = nn.BatchNorm3d(1, eps=0.0)
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    start(norm)
    assert norm.train()(torch.full((1, 1, 1, 1, 2), 7.0)).flatten().tolist() == [2.0, 2.0]


def test_evaluation_and_back() -> None:
    net = network()
    start(net)
    net.eval()
    assert not any(module.training for module in net)
    net.train()
    assert [module.training for module in net] == [True, False, True, True]
    assert list(net.state_dict()) == list(network().state_dict())


def test_nothing_changes_before_the_start() -> None:
    net = network()
    FixNormalization(net).attach(Engine(lambda engine, batch: None))  # never run
    x = torch.randn(4, 1, 5, 5)
    free = network().train()
    torch.manual_seed(1)
    wanted = free(x)
    torch.manual_seed(1)
    assert torch.equal(net.train()(x), wanted)
    assert statistics(net) == statistics(free)
    assert statistics(net)[2] == 1


def test_a_copy_made_before_is_left_alone() -> None:
    net = network()
    average = copy.deepcopy(net)
    start(net)
    average.train()(torch.randn(4, 1, 5, 5))
    assert statistics(average)[2] == 1
    assert statistics(net)[2] == 0


@pytest.mark.parametrize("fixed", [False, True])
def test_in_a_trainer(fixed: bool) -> None:
    net = network()
    weights = copy.deepcopy(net.state_dict())
    batches = [{"image": torch.randn(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4)} for _ in range(3)]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=batches,
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        loss_function=nn.MSELoss(),
        train_handlers=[FixNormalization(net)] if fixed else [],
    ).run()
    assert statistics(net)[2] == (0 if fixed else 6)
    assert (statistics(net)[0] == [3.0, 3.0]) == fixed
    assert all(not torch.equal(parameter, weights[name]) for name, parameter in net[1].named_parameters("1"))


def test_momentum_of_every_batch_normalisation() -> None:
    net = nn.Sequential(
        nn.BatchNorm2d(1, momentum=0.01), nn.Sequential(nn.InstanceNorm2d(1, momentum=0.01)), nn.BatchNorm3d(1)
    )
    set_batch_norm_momentum(net, 0.5)
    # half of the 3 that the batch holds, half of the 0 from before
    net[0](torch.full((2, 1, 4, 4), 3.0))
    assert net[0].running_mean.tolist() == [1.5]
    assert (net[1][0].momentum, net[2].momentum) == (0.01, 0.5)
