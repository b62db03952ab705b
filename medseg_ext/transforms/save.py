"""Write the mask of a study the way its images came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, SaveImaged

from medseg_ext.errors import as_input_error
from medseg_ext.layouts import Study, write_mask
from medseg_ext.workflow.failures import Failures


class SaveStudyd(SaveImaged):
    """Write something for the study that each item is of; what cannot be written is recorded and the batch goes on.

    It is a ``SaveImaged`` so that programs that do their own saving and therefore leave that transform out, as MONAI
    Label does, leave this one out too.

    Args:
        keys: what is written.
        studies: the studies, looked up by the item's ``patient``.
        output_dir: where the files go.
        failures: where a failure is recorded; without it the first one is raised.
    """

    def __init__(
        self,
        keys: KeysCollection,
        studies: Sequence[Study],
        output_dir: str | Path,
        failures: Failures | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.studies = {study.patient: study for study in studies}
        self.output_dir = Path(output_dir)
        self.failures = failures

    @abstractmethod
    def write(self, study: Study, volume: torch.Tensor, data: Mapping[Hashable, Any]) -> None:
        """Write what stands under one key of an item.

        Raises:
            InputError: it cannot be written.
        """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; the data goes through unchanged."""
        for key in self.key_iterator(data):
            study = self.studies[data["patient"]]
            try:
                self.write(study, data[key], data)
            except Exception as error:
                if self.failures is None:
                    raise
                self.failures.add(as_input_error(error, self.output_dir, "a result that can be written"), study.patient)
        return dict(data)


class SaveMaskd(SaveStudyd):
    """Write (1, H, W, D) masks in the format, geometry and naming of their studies.

    Args:
        keys: masks in the orientation of :class:`~medseg_ext.transforms.LoadStudyd`.
        studies, output_dir, failures: see :class:`SaveStudyd`.
    """

    def write(self, study: Study, volume: torch.Tensor, data: Mapping[Hashable, Any]) -> None:
        """Write one mask."""
        write_mask(study, volume[0].cpu().numpy(), self.output_dir)
