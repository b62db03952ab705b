"""What is frozen stays, statistics included, and learns once it is let go."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from medseg_ext.training import FixNormalization
from medseg_ext.transfer import FreezeLayers


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "down": nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)),
            "middle": nn.Sequential(nn.Conv2d(2, 2, 1), nn.InstanceNorm2d(2, affine=True, track_running_stats=True)),
            "up": nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)),
        }
    )


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts.values():
            x = part(x)
        return x


def train(net: Chain, epochs: int, *handlers: object) -> list[dict[str, torch.Tensor]]:
    """Weights at the start and at the end of each epoch."""
    seen = [copy.deepcopy(net.state_dict())]
    torch.manual_seed(1)
    batches = [{"image": torch.randn(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4)} for _ in range(2)]
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches,
        network=net,
        optimizer=torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5),
        loss_function=nn.MSELoss(),
        train_handlers=list(handlers),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(copy.deepcopy(net.state_dict())))
    trainer.run()
    return seen


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}


def test_frozen_stays_and_is_let_go_by_epoch() -> None:
    net = Chain()
    handler = FreezeLayers(net, ["parts.(down|middle)"], {2: ["parts.middle"], "3": ["parts"]})
    seen = train(net, 3, handler)
    steps = [changed(a, b) for a, b in itertools.pairwise(seen)]
    assert steps == [{"up"}, {"middle", "up"}, {"down", "middle", "up"}]
    assert int(seen[3]["parts.down.1.num_batches_tracked"]) == 2, "the statistics of the last epoch alone"


def test_frozen_for_good() -> None:
    net = Chain()
    seen = train(net, 2, FreezeLayers(net, ["parts.down.0"]))
    names = [name for name in seen[0] if not name.endswith("num_batches_tracked")]
    same = {name for name in names if torch.equal(seen[0][name], seen[2][name])}
    assert same == {"parts.down.0.weight", "parts.down.0.bias"}, "the normalisation behind it is not frozen"


def test_nothing_frozen_changes_nothing() -> None:
    first, second = Chain(), Chain()
    one, other = train(first, 1, FreezeLayers(first)), train(second, 1)
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_a_resumed_training_freezes_what_its_epoch_freezes() -> None:
    net = Chain()
    handler = FreezeLayers(net, ["parts.(down|middle)"], {2: ["parts.middle"]})
    engine = Engine(lambda engine, batch: None)
    engine.load_state_dict({"epoch_length": 1, "max_epochs": 5, "iteration": 3})
    handler.attach(engine)
    engine.run([0], max_epochs=5)
    learns = {name.split(".")[1] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learns == {"middle", "up"}


@pytest.mark.parametrize("first", [False, True])
def test_normalisation_that_is_fixed_anyway_is_not_let_go(first: bool) -> None:
    net = Chain()
    handlers = [FixNormalization(net), FreezeLayers(net, ["parts.down"], {2: ["parts.down"]})]
    seen = train(net, 3, *(handlers if first else handlers[::-1]))
    for name in ("parts.down.1.running_mean", "parts.up.0.running_mean"):
        assert torch.equal(seen[0][name], seen[3][name])
    assert not torch.equal(seen[0]["parts.down.0.weight"], seen[3]["parts.down.0.weight"])


@pytest.mark.parametrize(
    ("frozen", "unfreeze", "message"),
    [
        (["encoder"], {}, "frozen: found 'encoder', with which no name begins"),
        (["parts"], {}, "frozen: found all parameters"),
        (["parts.down"], {0: ["parts.down"]}, "unfreeze: found epoch 0, allowed whole numbers from 1"),
        (["parts.down"], {"two": ["parts.down"]}, "unfreeze: found epoch 'two'"),
        (["parts.down"], {2: ["parts.up"]}, "unfreeze: found 'parts.up', with which no name begins"),
    ],
)
def test_refused(frozen: list[str], unfreeze: dict, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        FreezeLayers(Chain(), frozen, unfreeze)
    assert f"error: {message}" in capsys.readouterr().err


@pytest.fixture
def group(tmp_path):  # type: ignore[no-untyped-def]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_several_processes(group: None) -> None:
    net = Chain()
    handler = FreezeLayers(net, ["parts.down"])
    engine = Engine(lambda engine, batch: None)
    engine.network = nn.parallel.DistributedDataParallel(net)
    with pytest.raises(ValueError, match="found False with frozen layers"):
        handler.check_processes(engine)
    parallel = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
    engine.network = parallel
    handler.check_processes(engine)
    handler.apply(1)
    for epoch in (1, 2):
        if epoch == 2:
            handler.unfreeze = {2: ("parts.down",)}
            handler.apply(2)
        parallel(torch.randn(2, 1, 4, 4)).sum().backward()
        assert (net.parts["down"][0].weight.grad is None) == (epoch == 1)
