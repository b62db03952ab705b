"""The state of a training: crashes at every write, best kept, foreign files refused."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.training import TrainingState

SCORES = [0.2, 0.5, 0.4, 0.3, 0.45]


class Crash(BaseException):
    """What no handler catches, as nothing catches a kill."""


class Training:
    """A network of three numbers, trained on noise of its epoch; the validation's values are given."""

    def __init__(self, folder: Path, width: int = 3, scores: list[float] = SCORES, **options) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(width, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.engine, self.evaluator = Engine(self.step), Engine(lambda *_: None)
        self.scores = scores

        @self.engine.on(Events.EPOCH_COMPLETED)
        def validate(engine: Engine) -> None:
            self.evaluator.state.metrics = {"val_mean_dice": self.scores[engine.state.epoch - 1]}

        self.state = TrainingState(folder, self.network, {"optimizer": self.optimizer}, self.evaluator, **options)
        self.state.attach(self.engine)

    def step(self, engine: Engine, batch: int) -> None:
        self.optimizer.zero_grad()
        # torch's generator and the iteration both have to survive
        (self.network(torch.randn(4, self.network.in_features)) - engine.state.iteration).square().mean().backward()
        self.optimizer.step()

    def run(self, epochs: int = 5) -> None:
        self.engine.run([0, 1, 2], max_epochs=epochs)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model_best.pt", "model_last.pt")}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    Training(tmp_path / "whole").run()
    return results(tmp_path / "whole")


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    """Eight files are written in five epochs: five states, two best, one last."""
    save, replace, count = torch.save, Path.replace, iter(range(100))

    def half(content: object, stream: BinaryIO) -> None:
        save(content, stream)
        if not after and next(count) == at:
            stream.truncate(100)
            raise Crash

    def then(self: Path, target: Path) -> Path:
        result = replace(self, target)
        if after and next(count) == at:
            raise Crash
        return result

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", half)
        patched.setattr(Path, "replace", then)
        with pytest.raises(Crash):
            Training(tmp_path / "killed").run()
    assert not [name for name in listing(tmp_path / "killed") if "part" in name]
    for path in (tmp_path / "killed").iterdir():
        torch.load(path, weights_only=True)  # whole files only
    Training(tmp_path / "killed").run()
    assert results(tmp_path / "killed") == whole
    assert listing(tmp_path / "killed") == ["model_best.pt", "model_last.pt", "training_state.pt"]


def test_a_finished_training_does_nothing_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    steps = Training(tmp_path / "whole")
    steps.run()
    assert steps.engine.state.epoch == 5
    assert steps.engine.state.iteration == 15
    assert results(tmp_path / "whole") == whole


def test_a_worse_epoch_after_a_restart_replaces_nothing(tmp_path: Path) -> None:
    Training(tmp_path).run(2)
    best = (tmp_path / "model_best.pt").read_bytes()
    second = Training(tmp_path)
    second.run(5)
    assert (tmp_path / "model_best.pt").read_bytes() == best
    assert (second.state.best, second.state.best_epoch) == (0.5, 2)
    third = Training(tmp_path, scores=[*SCORES, 0.6])
    third.run(6)
    assert (tmp_path / "model_best.pt").read_bytes() != best
    assert (third.state.best, third.state.best_epoch) == (0.6, 6)


def test_only_epochs_that_validate_count(tmp_path: Path) -> None:
    training = Training(tmp_path, interval=2)
    training.run(5)
    assert (training.state.best, training.state.best_epoch) == (0.5, 2)
    training = Training(tmp_path / "b", scores=[0.9, 0.5, 0.8, 0.6, 0.7], interval=2)
    training.run(5)
    assert (training.state.best, training.state.best_epoch) == (0.6, 4)


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    Training(tmp_path).run(2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    reader = Training(tmp_path, read_only=True)
    reader.run(4)
    assert reader.engine.state.epoch == 4
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_earlier_state_is_not_overwritten_unless_resumed(tmp_path: Path) -> None:
    Training(tmp_path).run(1)
    with pytest.raises(InputError, match="an empty output folder, or resume true"):
        Training(tmp_path, resume=False).run()


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def foreign_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"network": Bomb()}))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no state"),
        lambda path: torch.save({"weight": torch.zeros(1)}, path),
        lambda path: torch.save([1, 2], path),
        foreign_pickle,
    ],
    ids=["truncated", "truncated early", "empty", "text", "weights", "a list", "code"],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Training(tmp_path).run(1)
    path = tmp_path / "training_state.pt"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        Training(tmp_path).run()
    assert str(caught.value).startswith(f"{path}: found no state of this training")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("options", [{"width": 4}, {"other": True}])
def test_the_state_of_another_training_is_refused(tmp_path: Path, options: dict) -> None:
    Training(tmp_path).run(1)
    training = Training(tmp_path, width=options.get("width", 3))
    if options.get("other"):
        training.state.objects["lr_scheduler"] = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda _: 1.0)
    with pytest.raises(InputError) as caught:
        training.run()
    assert caught.value.path == tmp_path / "training_state.pt"
    assert "\n" not in str(caught.value)


@pytest.fixture
def small_disk():
    """A limit on the size of files, which makes writing fail in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("width", [300, 100_000])
def test_a_full_disk_names_the_file_and_spoils_none(tmp_path: Path, small_disk, width: int) -> None:
    Training(tmp_path, width=width).run(1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    training = Training(tmp_path, width=width)
    small_disk(1000)
    with pytest.raises(InputError, match=r"model_best\.pt: found .*, allowed a writable folder with room") as caught:
        training.run(2)
    small_disk(10**9)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_parts_that_a_kill_left_are_cleared(tmp_path: Path) -> None:
    Training(tmp_path).run(1)
    (tmp_path / ".part-1-training_state.pt").write_text("half")
    Training(tmp_path).run(2)
    assert listing(tmp_path) == ["model_best.pt", "model_last.pt", "training_state.pt"]


def test_other_settings_are_another_training(tmp_path: Path) -> None:
    settings = {"fold": 0, "crop_size": (8, 8), "train": ["p1", "p2"]}
    Training(tmp_path, settings=settings).run(2)
    Training(tmp_path, settings={**settings, "crop_size": [8, 8]}).run(3)  # a list is what a tuple comes back as
    before = (tmp_path / "training_state.pt").read_bytes()
    with pytest.raises(InputError) as caught:
        Training(tmp_path, settings={**settings, "fold": 1}).run(4)
    assert caught.value.found == "the state of a training with other settings (fold 0 instead of 1)"
    with pytest.raises(InputError, match="train \\['p1', 'p2'\\] instead of \\['p1'\\]"):
        Training(tmp_path, settings={**settings, "train": ["p1"]}).run(4)
    assert (tmp_path / "training_state.pt").read_bytes() == before


@pytest.mark.parametrize("measured", [True, False])
def test_the_result_is_copied_when_the_training_ends(tmp_path: Path, measured: bool) -> None:
    copy = tmp_path / "models" / "model_trained.pt"
    copy.parent.mkdir()
    (copy.parent / "model.pt").write_bytes(b"shipped")
    copy.symlink_to("model.pt")  # as scripts/monailabel.sh puts it there
    training = Training(tmp_path / "out", copy=copy)
    if not measured:
        training.state.metric = "another"
    training.run(epochs=3)
    name = "model_best.pt" if measured else "model_last.pt"
    expected, found = (torch.load(path, weights_only=True) for path in (tmp_path / "out" / name, copy))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert (copy.parent / "model.pt").read_bytes() == b"shipped"


def test_a_relative_copy_is_not_one_below_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Training(tmp_path / "out", copy="models/model_trained.pt").run(epochs=1)
    assert listing(tmp_path / "models") == ["model_trained.pt"]
