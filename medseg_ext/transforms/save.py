"""Write the mask of a study the way its images came."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, SaveImaged

from medseg_ext.errors import InputError
from medseg_ext.layouts import Study, write_mask
from medseg_ext.workflow.failures import Failures


class SaveMaskd(SaveImaged):
    """Write (1, H, W, D) masks in the format, geometry and naming of their studies.

    It is a ``SaveImaged`` so that programs that do their own saving and therefore leave that transform out, as MONAI
    Label does, leave this one out too. A mask that cannot be written is recorded and the batch goes on.

    Args:
        keys: masks in the orientation of :class:`~medseg_ext.transforms.LoadStudyd`.
        studies: the studies, looked up by the item's ``patient``.
        output_dir: where the masks go.
        failures: where a failure is recorded.
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

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; the data goes through unchanged."""
        for key in self.key_iterator(data):
            study = self.studies[data["patient"]]
            try:
                write_mask(study, data[key][0].cpu().numpy(), self.output_dir)
            except InputError as error:
                if self.failures is None:
                    raise
                self.failures.add(error, study.patient)
        return dict(data)
