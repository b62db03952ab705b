"""Feed an evaluator one patient at a time, past the ones that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset
from tqdm import tqdm

from medseg_ext.errors import InputError
from medseg_ext.workflow.failures import Failures


class PatientStream(IterableDataset[dict[str, Any]]):
    """Transform and yield patients; one that raises an ``InputError`` is recorded and left out.

    Args:
        data: what ``transform`` is given, a dictionary a patient.
        transform: reads and prepares one patient.
        failures: where failures are recorded.
        progress: show a bar on stderr.
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
        for item in tqdm(self.data, desc="patients", unit="patient", disable=not self.progress):
            try:
                ready = self.transform(item)
            except InputError as error:
                if self.failures is None:
                    raise
                self.failures.add(error, str(item.get("patient", "")))
            else:
                yield ready
