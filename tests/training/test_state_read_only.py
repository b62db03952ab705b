import torch
from ignite.engine import Engine

from medseg_ext.training import TrainingState


def train(folder, network, epochs, read_only=False):
    seen = []
    engine = Engine(lambda engine, batch: seen.append(engine.state.epoch))
    TrainingState(folder, network, {"network": network}, read_only=read_only).attach(engine)
    engine.run(range(2), max_epochs=epochs)
    return seen


def test_other_processes_continue_too_and_write_nothing(tmp_path):
    network = torch.nn.Linear(1, 1)
    train(tmp_path, network, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = torch.nn.Linear(1, 1)
    assert train(tmp_path, other, 3, read_only=True) == [3, 3]
    torch.testing.assert_close(other.state_dict(), network.state_dict())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
