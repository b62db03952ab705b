"""Read all patients of a training before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monai.data import Dataset
from tqdm import tqdm

from medseg_ext.errors import InputError, input_error_in
from medseg_ext.processes import shard_or_all
from medseg_ext.workflow.failures import Failures


def read_patients(
    data: Sequence[Any], read: Callable[[Any], Any], workers: int = 1, progress: bool = True, desc: str = "reading"
) -> list[Any]:
    """Read every patient, in order.

    Args:
        data: what names each patient; given to ``read``.
        read: returns what is kept of a patient.
        workers: threads.
        progress: show a bar, named ``desc``.

    Raises:
        SystemExit: after a line for each patient that cannot be used: a training that silently lacks patients is
            another training. (``monai.bundle`` buries any other exception of a config's component.)
    """

    def attempt(item: Any) -> tuple[Any, InputError | None]:
        try:
            return read(item), None
        except Exception as error:
            known = input_error_in(error)
            if known is None:
                raise
            return None, known

    with ThreadPoolExecutor(max(1, workers)) as pool:
        done = list(tqdm(pool.map(attempt, data), total=len(data), desc=desc, unit="patient", disable=not progress))
    if Failures(error for _, error in done if error is not None):
        raise SystemExit(1)
    return [patient for patient, _ in done]


class PatientCache(Dataset):
    """Whole patients, decoded once and kept in memory.

    MONAI's ``CacheDataset`` does the same, but of a bad file it tells on its second page of traceback.

    Args:
        data: a dictionary a patient, of all processes.
        transform: reads and prepares one patient; deterministic.
        workers: threads that read. progress: show a bar meanwhile.
        rank: this process. world_size: processes, see :func:`~medseg_ext.processes.shard_or_all`.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Callable[[Any], Any],
        workers: int = 1,
        progress: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        own = shard_or_all(data, rank, world_size)
        super().__init__(read_patients(own, transform, workers, progress, "reading validation patients"))
