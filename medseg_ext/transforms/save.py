"""Write the mask of a study the way its images came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, SaveImaged

from medseg_ext.errors import as_input_error
from medseg_ext.files import check_name
from medseg_ext.layouts import Study, write_mask
from medseg_ext.workflow.failures import Failures


class Batch(Protocol):
    """The patients of a run, as :class:`~medseg_ext.workflow.BatchPatients` holds them."""

    @property
    def studies(self) -> Sequence[Study]:
        """Their studies."""

    @property
    def failures(self) -> Failures | None:
        """Where a failure is recorded; None has the first one raised."""


class SaveStudyd(SaveImaged):
    """Write something for the study that each item is of; what cannot be written is recorded and the batch goes on.

    It is a ``SaveImaged`` so that programs that do their own saving and therefore leave that transform out, as MONAI
    Label does, leave this one out too. As these have patients of their own, it looks at its own only when it writes.

    Args:
        keys: what is written.
        patients: those of the run; a study is looked up by the item's ``patient``.
        output_dir: where the files go.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patients: Batch,
        output_dir: str | Path,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.patients = patients
        self.output_dir = Path(output_dir)

    @cached_property
    def _studies(self) -> dict[str, Study]:
        return {study.patient: study for study in self.patients.studies}

    @abstractmethod
    def write(self, study: Study, volume: torch.Tensor, data: Mapping[Hashable, Any]) -> None:
        """Write what stands under one key of an item.

        Raises:
            InputError: it cannot be written.
        """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; the data goes through unchanged."""
        failures = self.patients.failures
        for key in self.key_iterator(data):
            study = self._studies[data["patient"]]
            try:
                check_name(study.patient, self.output_dir)
                self.write(study, data[key], data)
            except Exception as error:
                if failures is None:
                    raise
                failures.add(as_input_error(error, self.output_dir, "a result that can be written"), study.patient)
        return dict(data)


class SaveMaskd(SaveStudyd):
    """Write (1, H, W, D) masks in the format, geometry and naming of their studies.

    Args:
        keys: masks in the orientation of :class:`~medseg_ext.transforms.LoadStudyd`.
        patients, output_dir: see :class:`SaveStudyd`.
    """

    def write(self, study: Study, volume: torch.Tensor, data: Mapping[Hashable, Any]) -> None:
        """Write one mask."""
        write_mask(study, volume[0].cpu().numpy(), self.output_dir)
