"""Pictures of the validation while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from medseg_ext.errors import escaped
from medseg_ext.reports.overlays import example_overlay

Sink = Callable[[str, NDArray[np.uint8], int], None]


class ExampleOverlays:
    """At each validation draw the slice with most lesion of some patients, with both outlines.

    Attach it to a MONAI evaluator that yields whole patients, after the post-processing that makes ``pred`` binary.
    Pictures go to TensorBoard and to every function in ``sinks``, each called with the patient's name, the picture
    (H, W, 3) uint8 and the epoch.

    Args:
        log_dir: TensorBoard's folder; None for no TensorBoard.
        flair_channel: the channel drawn.
        patients: how many patients, the first ones of the validation.
        region: which channel of truth and prediction is drawn, where they have several.
    """

    def __init__(
        self, log_dir: str | Path | None = None, flair_channel: int = 1, patients: int = 4, region: int = 0
    ) -> None:
        self.log_dir = log_dir
        self.flair_channel = flair_channel
        self.patients = patients
        self.region = region
        self.sinks: list[Sink] = []
        self._drawn = 0
        self._writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.draw)
        engine.add_event_handler(Events.COMPLETED, self.flush)

    def start(self, engine: Engine) -> None:
        """Begin with the first patient again."""
        self._drawn = 0

    def draw(self, engine: Engine) -> None:
        """Draw the patients of one iteration."""
        output: Any = engine.state.output  # a list of patients, as MONAI's engines leave it
        for index, item in enumerate(output):
            if self._drawn >= self.patients:
                return
            image = item["image"][self.flair_channel][None]
            picture = example_overlay(image, self._mask(item.get("label")), self._mask(item["pred"]))
            name = self._name(engine.state.batch, index)
            self._drawn += 1
            self._log(name, picture, engine.state.epoch)

    def flush(self) -> None:
        """Let TensorBoard show what was drawn."""
        if self._writer is not None:
            self._writer.flush()

    def _mask(self, masks: Any) -> Any:
        return masks[self.region : self.region + 1] if masks is not None and len(masks) > 1 else masks

    def _name(self, batch: Any, index: int) -> str:
        item = batch[index] if isinstance(batch, list) and index < len(batch) else {}
        name = item.get("patient") if isinstance(item, Mapping) else None
        return escaped(name) if name else f"patient_{self._drawn + 1}"

    def _log(self, name: str, picture: NDArray[np.uint8], epoch: int) -> None:
        if self.log_dir is not None:
            if self._writer is None:  # no file of events before there is one
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.log_dir))
            self._writer.add_image(f"overlays/{name}", picture, epoch, dataformats="HWC")
        for sink in self.sinks:
            sink(name, picture, epoch)
