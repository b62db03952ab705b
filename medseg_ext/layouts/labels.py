"""Label conventions of the brain tumour sets, and the three regions they all lead to.

The same number means different tissue in different sets, so that a label map is read by its convention: declared,
known from the names the set gives its files, or told from the values where only one reading of them is left. The
regions are those of the BraTS challenges (B. Menze et al., IEEE TMI 34, 2015; S. Bakas et al., arXiv 1811.02629):
tumour core (`tc`), whole tumour (`wt`), which holds the core, and enhancing tumour (`et`), a part of the core.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_ext.errors import InputError

#: Order of the regions wherever they are channels.
REGIONS = ("tc", "wt", "et")
#: Which regions a tissue belongs to, in that order.
TISSUES: dict[str, tuple[bool, bool, bool]] = {
    "background": (False, False, False),
    "necrosis": (True, True, False),
    "non-enhancing tumour": (True, True, False),
    "necrotic and non-enhancing core": (True, True, False),
    "edema": (False, True, False),
    "enhancing tumour": (True, True, True),
    "resection cavity": (False, False, False),
}
AUTO = "auto"


@dataclass(frozen=True)
class Convention:
    """What the numbers of a label map stand for.

    Args:
        name: how configs call it.
        tissues: a tissue of `TISSUES` by value; 0 is background everywhere.
        telling: values that have to be there before the convention is thought of by values alone.
    """

    name: str
    tissues: Mapping[int, str]
    telling: frozenset[int] = frozenset()

    def regions_of(self, value: int) -> tuple[bool, bool, bool]:
        """Whether a value is tumour core, whole tumour, enhancing tumour."""
        return TISSUES[self.tissues.get(value, "background")]

    def allows(self, values: Iterable[int]) -> bool:
        """Whether the convention knows all of the values."""
        return set(values) <= {0, *self.tissues}

    def value_of(self, *tissues: str) -> int:
        """The value that stands for the first of the tissues that the convention has."""
        by_tissue = {tissue: value for value, tissue in self.tissues.items()}
        return next(by_tissue[tissue] for tissue in tissues if tissue in by_tissue)


_CORE, _EDEMA, _ENHANCING = "necrotic and non-enhancing core", "edema", "enhancing tumour"
#: Where several fit and agree, the first is named.
CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("brats2017", {1: _CORE, 2: _EDEMA, 4: _ENHANCING}),
        Convention("brats2023", {1: _CORE, 2: _EDEMA, 3: _ENHANCING}),
        Convention("brats2013", {1: "necrosis", 2: _EDEMA, 3: "non-enhancing tumour", 4: _ENHANCING}),
        # Post-treatment sets carry their names with them; a 4 without a 3 says nothing of a cavity elsewhere.
        Convention("brats2024", {1: _CORE, 2: _EDEMA, 3: _ENHANCING, 4: "resection cavity"}, frozenset({3, 4})),
        Convention("decathlon", {1: _EDEMA, 2: _CORE, 3: _ENHANCING}),
    )
}
CONVENTION_NAMES = tuple(CONVENTIONS)
_DECLARE = f"a declared label convention ({', '.join(CONVENTION_NAMES)})"


@dataclass(frozen=True)
class _Naming:
    """File names by which a set is known, and the conventions that it may use."""

    images: re.Pattern[str]
    mask: re.Pattern[str]
    conventions: tuple[str, ...]


# The paediatric sets number their parts in another order from year to year under one kind of name: none is known.
_NAMINGS = (
    _Naming(re.compile(r".*-(t1c|t1n|t2f|t2w)"), re.compile(r".*-PED-.*-seg"), ()),
    _Naming(re.compile(r".*-(t1c|t1n|t2f|t2w)"), re.compile(r".*-seg"), ("brats2023", "brats2024")),
    _Naming(re.compile(r".*_(flair|t1|t1ce|t2)"), re.compile(r".*_seg|W39_1998\.09\.19_Segm"), ("brats2017",)),
    _Naming(re.compile(r".*"), re.compile(r"OTMultiClass"), ("brats2013",)),
)


def conventions_of_names(images: Sequence[str], mask: str) -> tuple[str, ...] | None:
    """The conventions that a study's file names leave open.

    Args:
        images: stems of the image files.
        mask: stem of the label map.

    Returns:
        Names of conventions; None where the names say nothing, empty where they name a set whose labels are none of
        these.
    """
    for naming in _NAMINGS:
        if naming.mask.fullmatch(mask) and all(naming.images.fullmatch(image) for image in images):
            return naming.conventions
    return None


def conventions_of_store(mask: Path) -> tuple[str, ...] | None:
    """The conventions of a label map that a MONAI Label server keeps.

    Its clients draw with the values that the bundle's metadata gives them, 1, 2 and 3; a label map with a 4 was brought
    along from BraTS.

    Args:
        mask: the label map.

    Returns:
        Names of conventions; None where the file lies in no such store, ``STUDIES/labels/TAG/IMAGE.nii.gz`` with the
        list ``STUDIES/datastore_v2.json``.
    """
    folders = mask.absolute().parents
    kept = len(folders) > 2 and folders[1].name == "labels" and (folders[2] / "datastore_v2.json").is_file()
    return ("brats2023", "brats2017") if kept else None


_PART_NAMES = (
    (re.compile(r"edema|\bed\b|\bsnfh\b|hyperintens"), _EDEMA),
    (re.compile(r"non.?enhanc|necro|\bncr\b|\bnetc?\b"), _CORE),
    (re.compile(r"enhanc|\bet\b"), _ENHANCING),
    (re.compile(r"core"), _CORE),
    (re.compile(r"cavity|\brc\b"), "resection cavity"),
)
_REGION_NAMES = (
    (re.compile(r"whole|\bwt\b"), "wt"),
    (re.compile(r"core|\btc\b"), "tc"),
    (re.compile(r"enhanc|\bet\b"), "et"),
)


def conventions_of_json(labels: object) -> tuple[str, ...] | None:
    """The conventions that the ``labels`` of a ``dataset.json`` agree with.

    Args:
        labels: ``{"1": "edema", ...}`` as the Decathlon writes it, ``{"edema": 1, ...}`` or, by regions,
            ``{"whole tumor": [1, 2, 3], ...}`` as nnU-Net does.

    Returns:
        Names of conventions, None where the names of the labels are no tumour parts.
    """
    if not isinstance(labels, Mapping):
        return None
    regions: dict[int, dict[str, bool]] = {}
    for key, entry in labels.items():
        name, values = (entry, key) if isinstance(entry, str) else (key, entry)
        numbers = values if isinstance(values, (list, tuple)) else [values]
        try:
            wanted = [int(number) for number in numbers]
        except (TypeError, ValueError, OverflowError):
            return None
        if wanted == [0]:
            continue
        known = _known_regions(str(name).lower(), by_region=isinstance(values, (list, tuple)))
        if known is None:
            return None
        for value in wanted:
            regions.setdefault(value, dict.fromkeys(REGIONS, False)).update(known)
    found = {value: tuple(flags[region] for region in REGIONS) for value, flags in regions.items()}
    agreeing = tuple(
        convention.name
        for convention in CONVENTIONS.values()
        if set(found) == set(convention.tissues)
        and all(convention.regions_of(value) == flags for value, flags in found.items())
    )
    return agreeing or None


def _known_regions(name: str, by_region: bool) -> dict[str, bool] | None:
    if by_region:
        region = next((region for pattern, region in _REGION_NAMES if pattern.search(name)), None)
        return None if region is None else {region: True}
    tissue = next((tissue for pattern, tissue in _PART_NAMES if pattern.search(name)), None)
    return None if tissue is None else dict(zip(REGIONS, TISSUES[tissue], strict=True))


def label_values(labels: np.ndarray, path: str | os.PathLike[str] = "label map") -> list[int]:
    """The values that occur in a label map, sorted.

    Args:
        labels: any shape; whole numbers of any type, rounding errors of a rescaled file allowed.
        path: named in the error.

    Raises:
        InputError: for values that are no whole numbers from 0 to 255.
    """
    if labels.dtype == np.uint8:
        return np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)).tolist()
    values = np.unique(labels)
    odd = values[(np.abs(values - np.round(values)) > 1e-3) | (values < -0.5) | (values > 255)]
    if odd.size:
        raise InputError(path, f"values such as {odd[0]:g} in the label map", "whole numbers from 0")
    return sorted({int(value) for value in np.round(values)})


def detect_convention(
    values: Iterable[int],
    known: Sequence[str] | None = None,
    path: str | os.PathLike[str] = "label map",
) -> str:
    """The convention of a label map, where its values have one reading.

    Args:
        values: that occur in the map.
        known: conventions that are left by the layout; None to go by the values alone, where a 4 is a resection cavity
            only beside a 3.
        path: named in the error.

    Raises:
        InputError: where no convention fits, or several that read the values differently: 1 and 2 alone are core and
            edema, or edema and core.
    """
    present = sorted({int(value) for value in values} - {0})
    listed = ", ".join(map(str, present)) or "0"
    if known is not None and not known:
        raise InputError(path, f"label values {listed} of a set whose labels are not known", _DECLARE)
    candidates = [CONVENTIONS[name] for name in (CONVENTION_NAMES if known is None else known)]
    fitting = [
        convention
        for convention in candidates
        if convention.allows(present) and (known is not None or convention.telling <= set(present))
    ]
    if not fitting:
        raise InputError(path, f"label values {listed}", " or ".join(_values_text(c) for c in candidates))
    readings: dict[tuple[tuple[bool, bool, bool], ...], str] = {}
    for convention in fitting:
        readings.setdefault(tuple(convention.regions_of(value) for value in present), convention.name)
    if len(readings) > 1:
        found = f"label values {listed}, which {' and '.join(readings.values())} read differently"
        raise InputError(path, found, _DECLARE)
    return next(iter(readings.values()))


def _values_text(convention: Convention) -> str:
    return f"{', '.join(map(str, [0, *convention.tissues]))} ({convention.name})"


def get_convention(name: str) -> Convention:
    """A convention by its name.

    Raises:
        InputError: for an unknown name.
    """
    if name not in CONVENTIONS:
        raise InputError("label convention", repr(name), ", ".join(CONVENTION_NAMES))
    return CONVENTIONS[name]


def resolve_convention(
    labels: np.ndarray,
    declared: str = AUTO,
    known: Sequence[str] | None = None,
    path: str | os.PathLike[str] = "label map",
) -> str:
    """The convention by which a label map is to be read: the declared one, or the detected one for ``auto``.

    Args:
        labels: the map.
        declared: a convention, or ``auto``.
        known: conventions that are left by the layout, for ``auto``.
        path: named in the error.

    Raises:
        InputError: for values outside the convention, and where ``auto`` cannot decide.
    """
    values = label_values(labels, path)
    if declared == AUTO:
        return detect_convention(values, known, path)
    convention = get_convention(declared)
    if not convention.allows(values):
        raise InputError(path, f"label values {', '.join(map(str, values))}", _values_text(convention))
    return declared


def regions_from_labels(labels: np.ndarray, convention: str, path: str | os.PathLike[str] = "label map") -> np.ndarray:
    """The regions of a label map.

    Args:
        labels: whole numbers, shape (H, W, D) or any other.
        convention: a name of `CONVENTIONS`.
        path: named in the error.

    Returns:
        uint8 of 0 and 1, shape (3, *labels.shape): tumour core, whole tumour, enhancing tumour.

    Raises:
        InputError: for values outside the convention.
    """
    resolve_convention(labels, convention, path=path)
    numbers = labels if labels.dtype == np.uint8 else np.round(labels).astype(np.uint8)
    tables = np.zeros((len(REGIONS), 256), np.uint8)
    for value in CONVENTIONS[convention].tissues:
        tables[:, value] = CONVENTIONS[convention].regions_of(value)
    return tables[:, numbers]


def labels_from_regions(regions: np.ndarray, convention: str) -> np.ndarray:
    """The label map of regions.

    Regions that contradict each other are made consistent by the inner one: what is enhancing counts as core and as
    whole tumour, what is core as whole tumour, whatever those regions say. So a voxel takes the value of enhancing
    tumour where `et` is set, else that of the core where `tc` is set, else that of edema where `wt` is. Where a
    convention splits the core (2013) its voxels become necrosis, for regions do not tell; a resection cavity is in no
    region and never comes out.

    Args:
        regions: shape (3, ...): `tc`, `wt`, `et`; other than 0 is inside.
        convention: a name of `CONVENTIONS`.

    Returns:
        uint8, the shape without the first axis.

    Raises:
        InputError: for an unknown convention.
        ValueError: for another number of regions.
    """
    if regions.shape[0] != len(REGIONS):
        raise ValueError(f"{regions.shape[0]} regions, allowed {len(REGIONS)} ({', '.join(REGIONS)})")
    wanted = get_convention(convention)
    labels = np.zeros(regions.shape[1:], np.uint8)
    core, whole, enhancing = (region != 0 for region in regions)
    labels[whole] = wanted.value_of(_EDEMA)
    labels[core] = wanted.value_of(_CORE, "necrosis")
    labels[enhancing] = wanted.value_of(_ENHANCING)
    return labels


def read_regions(labels: np.ndarray, path: Path, declared: str, known: Sequence[str] | None) -> tuple[np.ndarray, str]:
    """Regions of a label map and the convention it was read by."""
    convention = resolve_convention(labels, declared, known, path)
    return regions_from_labels(labels, convention, path), convention
