"""What a transfer study runs: ways to start, at several shares of the target's patients, read from YAML."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.experiments.overlays import check_overlays, merged_config, read_yaml
from medseg_ext.experiments.plan import (
    BUDGET_SCHEMA,
    NAME_SCHEMA,
    SEEDS_SCHEMA,
    WEIGHTS,
    WEIGHTS_SCHEMA,
    bundle_of,
    validate_yaml,
)
from medseg_ext.files import check_regular
from medseg_ext.layouts import patient_group

SLICES, PIECES = "slices", "pieces"
SCRATCH = "scratch"

_CONFIGS = {"type": "array", "minItems": 1, "items": {"type": "string"}}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["target", "configs", "folds", "shares", "budget", "sources", "arms"],
    "properties": {
        "bundle": {"type": "string"},
        "target": {"enum": [SLICES, PIECES]},
        "configs": _CONFIGS,
        "scoring": {"type": "array", "items": {"type": "string"}},
        "kinds": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "fold_count": {"type": "integer", "minimum": 2},
        "folds": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
        "shares": {"type": "array", "minItems": 1},
        "budget": BUDGET_SCHEMA,
        "values": {"type": "object"},
        "weights": WEIGHTS_SCHEMA,
        "dice_targets": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
        "sources": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["configs"],
                "properties": {
                    "bundle": {"type": "string"},
                    "configs": _CONFIGS,
                    "values": {"type": "object"},
                    "weights": WEIGHTS_SCHEMA,
                },
            },
        },
        "arms": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": NAME_SCHEMA,
                    "source": {"type": "string"},
                    "values": {"type": "object"},
                },
            },
        },
    },
}
_SCHEMA["properties"]["shares"]["items"] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["share", "seeds"],
    "properties": {
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "seeds": SEEDS_SCHEMA,
    },
}


@dataclass(frozen=True)
class Source:
    """A training whose weights an arm starts from, without whoever is held out.

    Args:
        name: of its folder. bundle, configs, values: of the training. weights: which of its files.
    """

    name: str
    bundle: Path
    configs: tuple[Path, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    weights: str = WEIGHTS[1]


@dataclass(frozen=True)
class Arm:
    """A way to start.

    Args:
        name: of its folder. source: None for none. values: named values of ``transfer.yaml``.
    """

    name: str
    source: Source | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A transfer study.

    Args:
        path: the file. bundle, configs: of the target's training. scoring: further configs of its evaluation.
        target: ``pieces`` (packed parts of patients) or ``slices`` (studies in the LGG layouts).
        kinds: of the pieces that are scored. fold_count: folds of slices; pieces have their own. folds: which run.
        shares: of the patients that train, each with its seeds.
        budget, values: of each training of the target. weights: which are scored.
        dice_targets: validation Dice to which the time is told.
        arms: the first is ``scratch``.
    """

    path: Path
    bundle: Path
    target: str
    configs: tuple[Path, ...]
    scoring: tuple[Path, ...]
    kinds: tuple[str, ...]
    fold_count: int
    folds: tuple[int, ...]
    shares: Mapping[float, tuple[int, ...]]
    budget: Mapping[str, int]
    values: Mapping[str, Any]
    weights: str
    dice_targets: tuple[float, ...]
    arms: tuple[Arm, ...]

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.budget["samples_per_epoch"] // self.budget["batch_size"]


def read_study(path: Path) -> Study:
    """Read a study and check all that can be checked before anything runs.

    Args:
        path: YAML; configs are paths from the ``configs`` of their bundle, bundles are names of folders beside the
            target's, which is the one that the file lies in unless ``bundle`` says a path from the file's folder.

    Raises:
        InputError: for what cannot be what was meant.
    """
    content = read_yaml(path, "a transfer study in YAML")
    validate_yaml(path, content, _SCHEMA)
    bundle = (path.parent / content["bundle"]).resolve() if "bundle" in content else bundle_of(path)
    if bundle is None or not (bundle / "configs" / "train.json").is_file():
        raise InputError(path, f"no bundle ({bundle})", "bundle: FOLDER, or a file in a bundle's configs")
    configs = _configs(path, bundle, content["configs"])
    sources = {name: _source(path, bundle, name, entry) for name, entry in content["sources"].items()}
    arms = []
    for entry in content["arms"]:
        name = entry.get("source")
        if name is not None and name not in sources:
            raise InputError(path, f"an unknown source {name!r} of {entry['name']}", ", ".join(sources) or "none")
        _check_values(path, entry["name"], entry.get("values", {}), configs)
        arms.append(Arm(entry["name"], sources.get(name), entry.get("values", {})))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names) or names[0] != SCRATCH or arms[0].source:
        raise InputError(path, f"arms {', '.join(names)}", f"each once, the first {SCRATCH}, without a source")
    _check_values(path, "the study", content.get("values", {}), configs)
    return Study(
        path=path,
        bundle=bundle,
        target=content["target"],
        configs=configs,
        scoring=_configs(path, bundle, content.get("scoring", [])),
        kinds=tuple(content.get("kinds", ("cube", "head"))),
        fold_count=content.get("fold_count", 5),
        folds=tuple(content["folds"]),
        shares={float(entry["share"]): tuple(entry["seeds"]) for entry in content["shares"]},
        budget=content["budget"],
        values=content.get("values", {}),
        weights=content.get("weights", WEIGHTS[1]),
        dice_targets=tuple(content.get("dice_targets", ())),
        arms=tuple(arms),
    )


def part_of(
    study: Study, arms: Sequence[str] | None = None, shares: Sequence[float] | None = None, epochs: int | None = None
) -> Study:
    """The same study with some of its arms and shares, or with another number of epochs.

    Raises:
        InputError: an arm or a share that it does not have, or arms without ``scratch``.
    """
    known = [arm.name for arm in study.arms]
    for name in arms or ():
        if name not in known:
            raise InputError(study.path, f"no arm {name}", ", ".join(known))
    if arms is not None and SCRATCH not in arms:
        raise InputError(study.path, f"arms {', '.join(arms)}", f"{SCRATCH} among them")
    for share in shares or ():
        if share not in study.shares:
            raise InputError(study.path, f"no share {share:g}", ", ".join(f"{s:g}" for s in study.shares))
    return replace(
        study,
        arms=tuple(arm for arm in study.arms if arms is None or arm.name in arms),
        shares={share: seeds for share, seeds in study.shares.items() if shares is None or share in shares},
        budget={**study.budget, **({} if epochs is None else {"max_epochs": epochs})},
    )


def _source(path: Path, bundle: Path, name: str, entry: Mapping[str, Any]) -> Source:
    folder = bundle.parent / entry.get("bundle", bundle.name)
    if not (folder / "configs" / "train.json").is_file():
        raise InputError(path, f"no bundle {folder}", "a folder beside the target's bundle")
    configs = _configs(path, folder, entry["configs"])
    _check_values(path, name, entry.get("values", {}), configs)
    return Source(name, folder, configs, entry.get("values", {}), entry.get("weights", WEIGHTS[1]))


def _configs(path: Path, bundle: Path, names: Sequence[str]) -> tuple[Path, ...]:
    files = tuple(bundle / "configs" / name for name in names)
    for file in files:
        if not file.is_file():
            raise InputError(path, f"no config {file}", f"a file in {bundle / 'configs'}")
    overlays = [file for file in files if file.suffix == ".yaml"]
    base = [file for file in files if file.suffix != ".yaml"]
    for i, overlay in enumerate(overlays):
        if base:
            check_overlays([overlay], [*base, *overlays[:i]])
    return files


def _check_values(path: Path, who: str, values: Mapping[str, Any], configs: Sequence[Path]) -> None:
    known = merged_config(configs)
    for name in values:
        if name.split("::")[0].split("#")[0] not in known:
            raise InputError(path, f"an unknown value {name!r} of {who}", "named values of its configs")


@dataclass(frozen=True)
class People:
    """Who is who in two sets that share persons.

    Args:
        lgg_of: person in the LGG set (see :func:`~medseg_ext.layouts.patient_group`) by name in the BraTS sets.
    """

    lgg_of: Mapping[str, str]

    def lgg_persons(self, brats: Iterable[str]) -> set[str]:
        """Persons of the LGG set behind patients of BraTS."""
        return {self.lgg_of[name] for name in brats if name in self.lgg_of}

    def lgg_alone(self, lgg: Iterable[str], brats: Iterable[str]) -> list[str]:
        """Those patients of the LGG set who are none of these of BraTS."""
        both = self.lgg_persons(brats)
        return [name for name in lgg if patient_group(name) not in both]

    def brats_names(self, lgg: Iterable[str]) -> list[str]:
        """Patients of BraTS behind patients of the LGG set."""
        persons = {patient_group(name) for name in lgg}
        return sorted(name for name, person in self.lgg_of.items() if person in persons)


def read_people(path: Path) -> People:
    """Read a table with the columns ``brats2020`` and ``lgg_folder``, the latter empty for patients of one set alone.

    Raises:
        InputError: it is no such table.
    """
    allowed = "a CSV with the columns brats2020 and lgg_folder"
    check_regular(path, allowed)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [(row["brats2020"], row["lgg_folder"]) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(path, f"no such table ({type(error).__name__}: {error})", allowed) from error
    if not rows:
        raise InputError(path, "no row", allowed)
    return People({brats: patient_group(lgg) for brats, lgg in rows if lgg})
