"""Which patients and files a run was given, without what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_ext.layouts import Study
from medseg_ext.training.pieces import Piece
from medseg_ext.workflow.patients import patient_of

#: MLflow takes 36 characters.
_DIGEST_LENGTH = 32


@dataclass(frozen=True)
class DataSummary:
    """A data set as MLflow records it.

    Args:
        name: of the folder. source: the folder.
        digest: see :func:`summarise_data`.
        patients: in order of their names, each once.
        files: how many. size: of all files together, in bytes.
    """

    name: str
    source: str
    digest: str
    patients: tuple[str, ...]
    files: int
    size: int

    def as_input(self, context: str, split: str) -> Any:
        """The entity that ``mlflow.log_input`` logs.

        Args:
            context: what the run did with it: ``training``, ``validation``, ``evaluation`` or ``inference``.
            split: its name in the split file.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        profile = {"patients": len(self.patients), "files": self.files, "bytes": self.size}
        return DatasetInput(
            Dataset(
                name=self.name,
                digest=self.digest,
                source_type="local",
                source=json.dumps({"uri": self.source}),
                profile=json.dumps(profile),
            ),
            [InputTag(MLFLOW_DATASET_CONTEXT, context), InputTag("split", split)],
        )


def summarise_data(items: Iterable[Any], folder: str | os.PathLike[str]) -> DataSummary:
    """Name the patients and files of a data set.

    The digest is the start of a SHA-256 over patient, file name and size in bytes of each file that is read (of a DICOM
    series its first; of a packed piece its arrays). It takes no reading, is the same wherever the folder lies, and
    tells another choice of patients, a missing or a renamed file; an edit that leaves the size as it is it does not.

    Args:
        items: studies, dictionaries with a study or a file as ``image`` (and ``label``), or packed pieces.
        folder: the data set's, to which file names are relative.
    """
    root = Path(os.path.normpath(Path(folder).absolute()))
    root = root.parent if root.is_file() else root  # a study of one file
    files = sorted(entry for item in items for entry in _files(item, root))
    lines = (f"{patient}\t{name}\t{size}\n" for patient, name, size in files)
    return DataSummary(
        name=root.name or "data",
        source=str(root),
        digest=hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:_DIGEST_LENGTH],
        patients=tuple(sorted({patient for patient, _, _ in files})),
        files=len(files),
        size=sum(size for _, _, size in files),
    )


def _files(item: Any, root: Path) -> list[tuple[str, str, int]]:
    if isinstance(item, Piece):
        arrays = {"image": item.image, "truth": item.truth}
        return [(item.patient, f"{item.name}.{part}.npy", array.nbytes) for part, array in arrays.items()]
    image = item["image"] if isinstance(item, Mapping) else item
    if isinstance(image, Study):
        # a 4-D file holds the whole study, and a file may be named for several sequences
        patient, paths = image.patient, dict.fromkeys([*image.images, *image.masks])
    else:
        patient, paths = patient_of(item), dict.fromkeys(Path(item[key]) for key in ("image", "label") if key in item)
    return [(patient, _relative(path, root), path.stat().st_size) for path in paths]


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
