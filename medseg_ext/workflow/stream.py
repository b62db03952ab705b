"""Feed an evaluator one patient at a time, past the ones that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset
from tqdm import tqdm

from medseg_ext.errors import as_input_error
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

    def __iter__(self) -> Iterator[dict[str, Any]]:
        failed = 0
        for item in tqdm(self.data, desc="patients", unit="patient", disable=not self.progress):
            try:
                ready = self.transform(item)
            except Exception as error:
                if self.failures is None:
                    raise
                failed += 1
                known = as_input_error(error, _place(item), "a study that can be read and prepared")
                self.failures.add(known, str(item.get("patient", "")))
            else:
                yield ready
        if failed and failed == len(self.data) and process_count() == 1:
            raise NothingLeftError(f"none of {failed} patients can be used")


def _place(item: dict[str, Any]) -> str | os.PathLike[str]:
    """What an error names: the files of a patient, else the patient."""
    source = item.get("image")
    if isinstance(source, Study):
        return source.place
    return source if isinstance(source, (str, os.PathLike)) else str(item.get("patient", "patient"))
