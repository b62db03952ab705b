"""Feed an evaluator one patient at a time, past the ones that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset
from tqdm import tqdm

from medseg_ext.errors import input_error_in
from medseg_ext.workflow.failures import Failures, NothingLeftError


class PatientStream(IterableDataset[dict[str, Any]]):
    """Transform and yield patients; one that raises an ``InputError`` is recorded and left out.

    Args:
        data: what ``transform`` is given, a dictionary a patient.
        transform: reads and prepares one patient.
        failures: where failures are recorded.
        progress: show a bar on stderr.

    Raises:
        NothingLeftError: at the end, when every patient failed: engines and metrics cannot do with no data.
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
                known = input_error_in(error)  # a Compose wraps what its transforms raise
                if known is None or self.failures is None:
                    raise
                failed += 1
                self.failures.add(known, str(item.get("patient", "")))
            else:
                yield ready
        if failed and failed == len(self.data):
            raise NothingLeftError(f"none of {failed} patients can be used")
