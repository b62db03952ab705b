"""What a sweep runs: rows of overlays on one budget, read from a YAML list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from medseg_ext.errors import InputError
from medseg_ext.experiments.overlays import Config, check_overlays, merged_config, read_yaml, shared_with

#: What a row changes; the reference's recipe is a program of its own.
BASELINE, REFERENCE = "baseline", "reference"
GROUPS = (BASELINE, "network", "loss", "optimizer", "schedule", "augmentation", "input", REFERENCE)
BUDGET = ("max_epochs", "samples_per_epoch", "batch_size")
WEIGHTS = ("model_best.pt", "model_last.pt")

#: What lists and studies say alike.
SEEDS_SCHEMA = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "integer", "minimum": 0}}
BUDGET_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": list(BUDGET),
    "properties": {key: {"type": "integer", "minimum": 1} for key in BUDGET},
}
WEIGHTS_SCHEMA = {"enum": list(WEIGHTS)}
NAME_SCHEMA = {"type": "string", "pattern": r"^[A-Za-z0-9_.-]+$"}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["budget", "experiments"],
    "properties": {
        "bundle": {"type": "string"},
        "seeds": SEEDS_SCHEMA,
        "budget": BUDGET_SCHEMA,
        "values": {"type": "object"},
        "weights": WEIGHTS_SCHEMA,
        "split": {"type": "string", "minLength": 1},
        "experiments": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "group"],
                "properties": {
                    "name": NAME_SCHEMA,
                    "group": {"enum": list(GROUPS)},
                    "overlays": {"type": "array", "items": {"type": "string"}},
                    "seeds": SEEDS_SCHEMA,
                    "values": {"type": "object"},
                },
            },
        },
    },
}


@dataclass(frozen=True)
class Experiment:
    """One row.

    Args:
        name: of its folder and its run. group: what it changes, one of ``GROUPS``.
        seeds: a run with each.
        overlays: files merged over ``train.json``. values: named values.
        scoring: what of both ``inference.json`` has a use for, merged over it.
    """

    name: str
    group: str
    seeds: tuple[int, ...]
    overlays: tuple[Path, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    scoring: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        path: the list. bundle: the folder that is trained.
        budget: epochs, samples an epoch and samples a step, the same for each row.
        values: further named values of every row. weights: which are scored, on the patients of ``split``.
        experiments: the rows, exactly one of the group ``baseline``.
    """

    path: Path
    bundle: Path
    budget: Mapping[str, int]
    values: Mapping[str, Any]
    weights: str
    split: str
    experiments: tuple[Experiment, ...]

    @property
    def baseline(self) -> Experiment:
        """The row that the others are compared with."""
        return next(row for row in self.experiments if row.group == BASELINE)

    @property
    def samples(self) -> int:
        """Training samples of a row."""
        return self.budget["max_epochs"] * self.budget["samples_per_epoch"]

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.budget["samples_per_epoch"] // self.budget["batch_size"]

    def describe_budget(self) -> str:
        """The budget in a sentence."""
        steps = self.steps_an_epoch * self.budget["max_epochs"]
        return (
            f"{self.samples:,} training samples a run: {self.budget['max_epochs']} epochs of "
            f"{self.budget['samples_per_epoch']:,}, {steps:,} steps of {self.budget['batch_size']}; "
            f"{sum(len(row.seeds) for row in self.experiments)} runs."
        )


def bundle_of(path: Path) -> Path | None:
    """The bundle that a file lies in."""
    return next((p for p in path.resolve().parents if (p / "configs" / "metadata.json").is_file()), None)


def validate_yaml(path: Path, content: Any, schema: Mapping[str, Any]) -> None:
    """Check what a file holds against a JSON schema.

    Raises:
        InputError: with what is wrong first, and where.
    """
    error = best_match(Draft202012Validator(schema).iter_errors(content))
    if error is not None:
        place = ".".join(map(str, error.absolute_path)) or "the whole file"
        raise InputError(path, f"{' '.join(error.message.split())[:200]} (at {place})", "what the shipped list has")


def read_plan(path: Path) -> Plan:
    """Read a list and check every row of it, before anything runs.

    Args:
        path: YAML with ``budget``, ``experiments``, and optionally ``bundle`` (a path from the list's folder; otherwise
            the bundle that the list lies in), ``seeds`` of the rows that have none of their own, ``values``,
            ``weights`` and ``split``. An overlay is a path from the list's folder, or from the bundle's
            ``configs/experiments``.

    Raises:
        InputError: for a list or an overlay that cannot be what was meant.
    """
    content = read_yaml(path, "a list of experiments in YAML")
    validate_yaml(path, content, _SCHEMA)
    bundle = (path.parent / content["bundle"]).resolve() if "bundle" in content else bundle_of(path)
    if bundle is None or not (bundle / "configs" / "train.json").is_file():
        raise InputError(path, f"no bundle ({bundle})", "bundle: FOLDER, or a list in a bundle's configs")
    rows = content["experiments"]
    names = [row["name"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(path, f"{twice[0]} twice", "each name once")
    if (count := sum(row["group"] == BASELINE for row in rows)) != 1:
        raise InputError(path, f"{count} rows of the group {BASELINE}", "one")
    values = content.get("values", {})
    budget = content["budget"]
    if budget["samples_per_epoch"] < budget["batch_size"]:
        raise InputError(path, "fewer samples an epoch than a step takes", "samples_per_epoch of batch_size or more")
    return Plan(
        path=path,
        bundle=bundle,
        budget=budget,
        values=values,
        weights=content.get("weights", WEIGHTS[0]),
        split=content.get("split", "val"),
        experiments=tuple(
            _experiment(path, bundle, {"seeds": content.get("seeds", [0]), **row}, values) for row in rows
        ),
    )


def _experiment(path: Path, bundle: Path, row: Mapping[str, Any], common: Mapping[str, Any]) -> Experiment:
    configs = bundle / "configs"
    overlays = tuple(_find(path, name, configs / "experiments") for name in row.get("overlays", []))
    if row["group"] == REFERENCE:
        if overlays or row.get("values"):
            raise InputError(path, f"overlays or values of {row['name']}", f"none in the group {REFERENCE}")
        return Experiment(row["name"], row["group"], tuple(row["seeds"]))
    keys: Config = check_overlays(overlays, [configs / "train.json"])
    # what a row changes counts more than what all have in common
    values = {name: value for name, value in common.items() if name not in keys} | row.get("values", {})
    merged = merged_config([configs / "train.json", *overlays])
    for name in values:
        if name.split("::")[0].split("#")[0] not in merged:
            raise InputError(path, f"an unknown value {name!r} ({row['name']})", "named values of train.json")
    for name in (*keys, *values):
        if name in (*BUDGET, "seed", "output_dir", "dataset_dir"):
            raise InputError(path, f"{name} in {row['name']}", "what is not part of the budget or the run")
    scoring = merged_config([configs / "inference.json", configs / "evaluate.yaml"])
    scored = shared_with({**keys, **values}, scoring)
    return Experiment(row["name"], row["group"], tuple(row["seeds"]), overlays, values, scored)


def _find(path: Path, name: str, folder: Path) -> Path:
    for place in (path.parent / name, folder / name):
        if place.is_file():
            return place.resolve()
    raise InputError(path, f"no overlay {name}", f"a file in {path.parent} or {folder}")
