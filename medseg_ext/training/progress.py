"""A progress bar of a training."""

from __future__ import annotations

import sys
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import from_engine
from tqdm import tqdm


class TrainingBar:
    """A bar over the iterations of each epoch, with the mean loss of the epoch so far, on stderr.

    ignite's takes what it shows when it is attached, which a config cannot do, and draws itself anew at every
    iteration, which fills the log of a run without a terminal.

    Attach it before the ``ValidationHandler``, so that the bar is complete before the validation begins.

    Args:
        interval: least seconds between two drawings; None for half a second on a terminal and half a minute elsewhere.
    """

    def __init__(self, interval: float | None = None) -> None:
        self.interval = interval if interval is not None else 0.5 if sys.stderr.isatty() else 30.0
        self._loss = from_engine(["loss"], first=True)
        self._bar: tqdm[Any] | None = None
        self._sum = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.close)

    def open(self, engine: Engine) -> None:
        """Begin the bar of an epoch."""
        state = engine.state
        self._sum = 0.0
        self._bar = tqdm(
            total=state.epoch_length,
            desc=f"epoch {state.epoch}/{state.max_epochs}",
            unit="step",
            mininterval=self.interval,
            file=sys.stderr,
        )

    def advance(self, engine: Engine) -> None:
        """Count one iteration."""
        if self._bar is None:
            return
        self._sum += float(self._loss(engine.state.output))
        self._bar.set_postfix(loss=f"{self._sum / (self._bar.n + 1):.4f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """End the bar of an epoch."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
