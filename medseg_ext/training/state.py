"""Save all of a training's state at every epoch, continue from it, and keep the best weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medseg_ext.errors import InputError
from medseg_ext.files import write_beside
from medseg_ext.processes import gather_objects

logger = logging.getLogger(__name__)

#: What a training continues from.
STATE_FILE = "training_state.pt"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class TrainingState:
    """Make a training survive being killed at any moment, with the same final result.

    MONAI's ``CheckpointSaver`` and ``CheckpointLoader`` forget the best value across a restart, so that a worse epoch
    can replace the best weights; this handler keeps both in one file, written beside and renamed.

    At the end of each epoch, after validation (attach it after the ``ValidationHandler``), it writes
    ``<output_dir>/model_best.pt`` (a bare state dict) when the metric rose, ``<output_dir>/model_last.pt`` at the end
    of the training and ``<output_dir>/training_state.pt`` always. When the trainer starts and that last file is there,
    it continues from it.

    Args:
        output_dir: folder of the three files.
        network: its weights are the result, often an averaged copy of the network that trains.
        objects: everything else with a ``state_dict``: the trained network, optimizer, schedule.
        evaluator: its ``state.metrics[metric]`` chooses the best epoch; None keeps the last weights only.
        metric: name of the metric, higher is better.
        resume: continue from an existing file; False refuses to overwrite one.
        interval: epochs between validations: other epochs have no new metric.
        read_only: continue from the file, write none: what all processes but the first do.
        settings: what makes this training the one it is, by name: numbers, texts and lists of them. A state that was
            saved with others is refused: another fold or another seed is another training.
        copy: file that the best weights, or without a metric the last ones, are copied to when the training ends; None
            copies none.

    Raises:
        InputError: the file is of another training (other network, objects or settings) or damaged, a file cannot be
            written, or processes on several nodes do not find the same file.
    """

    def __init__(
        self,
        output_dir: str | Path,
        network: torch.nn.Module,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        metric: str = "val_mean_dice",
        resume: bool = True,
        interval: int = 1,
        read_only: bool = False,
        settings: Mapping[str, Any] | None = None,
        copy: str | Path | None = None,
    ) -> None:
        self.folder = Path(output_dir)
        self.network = network
        self.objects = dict(objects)
        self.evaluator = evaluator
        self.metric = metric
        self.resume = resume
        self.interval = interval
        self.read_only = read_only
        # as JSON has them: a tuple and the list it comes back as are the same setting
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings or {}), default=str))
        self.copy = None if copy is None else Path(copy)
        self.best: float | None = None
        self.best_epoch = 0

    @property
    def path(self) -> Path:
        """The file that a restart continues from."""
        return self.folder / STATE_FILE

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        if self.read_only:
            return
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def load(self, engine: Engine) -> None:
        """Continue from the saved state where there is one."""
        self._load(engine)
        epochs = gather_objects(engine.state.epoch)
        if len(set(epochs)) > 1:
            raise InputError(
                self.path,
                f"a state after epoch {max(epochs)} that {epochs.count(min(epochs))} of {len(epochs)} processes lack",
                "an output folder that all nodes share",
            )

    def _load(self, engine: Engine) -> None:
        if not self.read_only:
            for left_by_a_kill in self.folder.glob(".part-*.pt"):
                left_by_a_kill.unlink(missing_ok=True)
        if not self.path.exists():
            return
        if not self.resume:
            raise InputError(self.path, "the state of an earlier training", "an empty output folder, or resume true")
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self._check_settings(state.get("settings", {}))
            if set(state["objects"]) != set(self.objects):
                raise KeyError(f"{sorted(state['objects'])} instead of {sorted(self.objects)}")
            self.network.load_state_dict(state["network"])
            for name, item in self.objects.items():
                item.load_state_dict(state["objects"][name])
            torch.set_rng_state(state["rng"])
        except InputError:
            raise
        except Exception as error:  # torch.load raises anything from EOFError to RuntimeError
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                self.path, f"no state of this training ({reason})", "the file this training wrote"
            ) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        logger.info("continuing after epoch %d of %s", state["epoch"], self.path)

    def _check_settings(self, saved: Mapping[str, Any]) -> None:
        other = [name for name in sorted({*saved, *self.settings}) if saved.get(name) != self.settings.get(name)]
        if saved and other:
            pairs = ((name, _short(saved.get(name)), _short(self.settings.get(name))) for name in other)
            changes = (f"{name} {before} instead of {now}" for name, before, now in pairs)
            raise InputError(
                self.path,
                f"the state of a training with other settings ({'; '.join(changes)})",
                "the settings it began with, or another output folder",
            )

    def save(self, engine: Engine) -> None:
        """Write the state, and the weights where they are the best so far."""
        if self.evaluator is not None and engine.state.epoch % self.interval == 0:
            value = self.evaluator.state.metrics.get(self.metric)
            if value is not None and (self.best is None or value > self.best):
                self.best, self.best_epoch = float(value), engine.state.epoch
                self._write(self.network.state_dict(), self.folder / "model_best.pt")
        state = {
            "network": self.network.state_dict(),
            "objects": {name: item.state_dict() for name, item in self.objects.items()},
            "rng": torch.get_rng_state(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "settings": self.settings,
        }
        self._write(state, self.path)

    def finish(self, engine: Engine) -> None:
        """Write the last weights, say what was best and copy it."""
        self._write(self.network.state_dict(), self.folder / "model_last.pt")
        weights = self.folder / ("model_last.pt" if self.best is None else "model_best.pt")
        if self.best is not None:
            logger.info("best %s %.4f at epoch %d: %s", self.metric, self.best, self.best_epoch, weights)
        if self.copy is not None:
            self._write(torch.load(weights, map_location="cpu", weights_only=True), self.copy)
            logger.info("copied %s to %s", weights, self.copy)

    def _write(self, content: Any, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # through a stream, as given a path torch writes the part's name, and so the process's number, into the file
            with write_beside(path) as part, part.open("wb") as stream:
                torch.save(content, stream)
        except (OSError, RuntimeError) as error:  # on a full disk torch raises either
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(path, reason, "a writable folder with room for the weights") from error
