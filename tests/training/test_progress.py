from ignite.engine import Engine

from medseg_ext.training import TrainingBar


def test_bar_shows_epoch_steps_and_mean_loss(capsys):
    losses = iter([4.0, 2.0, 1.0, 3.0])
    engine = Engine(lambda engine, batch: [{"loss": next(losses)}, {"loss": 99.0}])
    TrainingBar(interval=0.0).attach(engine)
    engine.run(range(2), max_epochs=2)
    bars = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "100%" in line]
    assert bars[-1].startswith("epoch 2/2: 100%")
    assert "2/2 [" in bars[-1]
    assert "loss=2.0000" in bars[-1]
    assert any(line.startswith("epoch 1/2: 100%") and "loss=3.0000" in line for line in bars)


def test_log_gets_few_lines(capsys):
    engine = Engine(lambda engine, batch: [{"loss": 1.0}])
    TrainingBar(interval=30.0).attach(engine)
    engine.run(range(500), max_epochs=1)
    assert len([line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.strip()]) <= 2
