"""Feed an evaluator one patient at a time, past the ones that cannot be read or segmented."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.data import IterableDataset
from tqdm import tqdm

from medseg_ext.errors import InputError, as_input_error
from medseg_ext.layouts import Study
from medseg_ext.processes import process_count
from medseg_ext.workflow.failures import Failures, NothingLeftError


class PatientStream(IterableDataset[dict[str, Any]]):
    """Transform and yield patients; one that raises anything but an interrupt is recorded and left out.

    There is no end to what damaged or huge files make libraries raise, and no patient is to cost the others their
    masks. With ``MEDSEG_TRACEBACK=1`` every failure shows where it came from.

    Args:
        data: what ``transform`` is given, a dictionary a patient.
        transform: reads and prepares one patient.
        failures: where failures are recorded; without it the first one is raised.
        progress: show a bar on stderr.

    Raises:
        NothingLeftError: at the end, when every patient failed: engines and metrics cannot do with no data. Not under
            several processes, where the others may have some and wait for this one.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[dict[str, Any]], Any],
        failures: Failures | None = None,
        progress: bool = True,
    ) -> None:
        self.data = data
        self.transform = transform
        self.failures = failures
        self.progress = progress
        self._lost = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._lost = 0
        for item in tqdm(self.data, desc="patients", unit="patient", disable=not self.progress):
            try:
                ready = self.transform(item)
            except Exception as error:  # noqa: BLE001 - recorded, whatever libraries raise
                failures = self._failures_or_raise(error)
                known = as_input_error(error, _place(item), "a study that can be read and prepared")
                failures.add(known, str(item.get("patient", "")))
            else:
                yield ready
        if self._lost and self._lost == len(self.data) and process_count() == 1:
            raise NothingLeftError(f"none of {self._lost} patients can be used")

    def lose(self, patient: str, error: Exception) -> None:
        """Record that a patient who was read could not be segmented.

        Raises:
            Exception: the error itself, where failures are not recorded.
        """
        failures = self._failures_or_raise(error)
        place = next((_place(item) for item in self.data if str(item.get("patient")) == patient), patient)
        known = as_input_error(error, place, "a study that can be segmented")
        if not known.path.exists():  # the error is of something else, as of memory
            known = InputError(place, known.found, known.allowed)
        failures.add(known, patient)

    def _failures_or_raise(self, error: Exception) -> Failures:
        """Where a lost patient is recorded, who is counted; without that the error is raised."""
        if self.failures is None:
            raise error
        self._lost += 1
        return self.failures


def go_past_failures(engine: Engine) -> None:
    """Have an evaluator of single patients, fed by a :class:`PatientStream`, go on past one who cannot be segmented.

    Whatever the network or the post-processing raises is recorded as that patient's failure, and no handler is told
    that the iteration is completed: there is nothing to measure.
    """
    stream = getattr(getattr(engine, "data_loader", None), "dataset", None)
    if not isinstance(stream, PatientStream):
        return
    process, fire = engine._process_function, engine._fire_event  # ignite has no public way around an iteration
    failed = False

    def guarded(engine: Engine, batch: Any) -> Any:
        nonlocal failed
        failed = False
        try:
            return process(engine, batch)
        except Exception as error:  # noqa: BLE001 - recorded, as whatever reading raises
            names = batch.get("patient", "") if isinstance(batch, dict) else ""
            stream.lose(str(names[0] if isinstance(names, (list, tuple)) else names), error)
            failed = True
            return []

    def fire_unless_failed(event_name: Any, *event_args: Any, **event_kwargs: Any) -> None:
        if not (failed and event_name == Events.ITERATION_COMPLETED):
            fire(event_name, *event_args, **event_kwargs)

    engine._process_function = guarded
    engine._fire_event = fire_unless_failed  # type: ignore[method-assign]


def _place(item: dict[str, Any]) -> str | os.PathLike[str]:
    """What an error names: the files of a patient, else the patient."""
    source = item.get("image")
    if isinstance(source, Study):
        return source.place
    return source if isinstance(source, (str, os.PathLike)) else str(item.get("patient", "patient"))
