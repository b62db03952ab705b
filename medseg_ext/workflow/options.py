"""Refuse options that nothing uses, and values that cannot be, before anything is read."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jsonschema import Draft4Validator, Draft202012Validator, validators
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, EXPR_KEY, ID_REF_KEY, ID_SEP_KEY, MACRO_KEY
from monai.utils import BundlePropertyConfig

from medseg_ext.errors import InputError
from medseg_ext.workflow.failures import Failures
from medseg_ext.workflow.run import one_line_errors

# The types of draft 4, for which 16.0 is no integer, as it is none for a batch size; NaN is in no range.
_TYPES = Draft4Validator.TYPE_CHECKER
_Validator = validators.extend(
    Draft202012Validator,
    type_checker=_TYPES.redefine("number", lambda _, value: _TYPES.is_type(value, "number") and math.isfinite(value)),
)


def _known_to_monai() -> set[str]:
    properties: tuple[dict[str, Any], ...] = (TrainProperties, InferProperties, MetaProperties)
    ids = {entry[BundlePropertyConfig.ID] for group in properties for entry in group.values()}
    trackers: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
    tracking = {name for settings in trackers.values() for name in settings["configs"]}
    label = {"displayable_configs", "tracking"}  # MONAI Label's: what it shows, and what it writes for several GPUs
    return {ReferenceResolver.normalize_id(name) for name in ids} | tracking | label | {ConfigParser.meta_key}


def check_options(options: str = "options") -> None:
    """Check the config that is being run: call it first in ``initialize``.

    MONAI takes any ``--name value`` into the config, where a misspelt name changes nothing and nobody hears of it. Here
    a plain value is refused when no other part of the config refers to it, when neither MONAI nor ``options`` knows it,
    and when it is no argument of a component. Expressions, components and whatever holds one are left alone: they do
    something by themselves. A value that only a macro (``%name``) copies counts as unused, for macros leave no trace:
    refer to it by ``@name``.

    Then the values that ``options`` describes are checked, in its order, one after the other: an entry may refer to
    those before it.

    Args:
        options: id of a mapping from names of options to JSON schemas. A schema's ``description`` is what the error
            says is allowed; without it that is worded from the schema.

    Raises:
        SystemExit: status 1, after a line for each unused option, or for the first value that is not allowed.
    """
    parser = running_parser()
    _check_names(parser, options)
    _check_values(parser, options)


def devices() -> list[str | torch.device]:
    """The devices there are, each by name and as torch has it: what a schema's ``enum`` is compared with."""
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    names += ["cuda"] if torch.cuda.is_available() else []
    names += ["mps"] if torch.backends.mps.is_available() else []
    return [*names, *map(torch.device, names)]


def running_parser() -> ConfigParser:
    """The parser whose expression called: MONAI hands expressions no way to it but the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, ConfigParser):
            return found
        frame = frame.f_back
    raise RuntimeError("check_options: not called by an expression of a config")


def _check_names(parser: ConfigParser, options: str) -> None:
    config = parser.get()
    used = {name for text in _texts(config) for name in ReferenceResolver.match_refs_pattern(text)}
    # what ``options`` describes is known, though a user's own config may have replaced the part that used it
    known = used | _known_to_monai() | {options} | set(config.get(options, {}))
    unused = list(_unused(config, "", known))
    names = sorted(name for name in {*config, *known} - {*unused} if name in parser)
    errors = []
    for name in unused:
        near = difflib.get_close_matches(name, names, n=1)
        allowed = f"one that the config has{f' (did you mean {near[0]}?)' if near else ''}"
        errors.append(InputError(name, "an option that nothing uses", allowed))
    if Failures(errors):
        raise SystemExit(1)


def _unused(config: Mapping[str, Any], prefix: str, known: set[str]) -> Iterator[str]:
    """Ids of plain values that are not ``known``: at the top, and in groups, mappings that are no component."""
    for name, value in config.items():
        full = f"{prefix}{name}"
        if full in known:
            continue
        if isinstance(value, Mapping):
            if not ConfigComponent.is_instantiable(value):
                yield from _unused(value, f"{full}{ID_SEP_KEY}", known)
        elif not any(_does_something(part) for part in _parts(value)):
            yield full


def _does_something(part: Any) -> bool:
    if isinstance(part, Mapping):
        return ConfigComponent.is_instantiable(part)
    return isinstance(part, str) and part.startswith((EXPR_KEY, ID_REF_KEY, MACRO_KEY))


def _parts(value: Any) -> Iterator[Any]:
    """A value and all that it holds."""
    yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for part in inner:
        yield from _parts(part)


def _texts(value: Any) -> Iterator[str]:
    return (part for part in _parts(value) if isinstance(part, str))


@one_line_errors
def _check_values(parser: ConfigParser, options: str) -> None:
    for name in parser.get(options, {}):
        # one at a time: a schema may be made from options before it, which are known to be right by then
        schema = parser.get_parsed_content(f"{options}{ID_SEP_KEY}{name}")
        value = parser.get_parsed_content(name)
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not _Validator(schema).is_valid(list(value) if isinstance(value, tuple) else value):
            raise InputError(name, repr(value), describe(schema))


def describe(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words: its ``description`` where it has one."""
    if "description" in schema:
        return str(schema["description"])
    if "enum" in schema:
        *others, last = map(repr, schema["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    kind = schema.get("type")
    if kind == "boolean":
        return "True or False"
    if kind == "array":
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        count = f"{low}" if low == high else f"{low} to {high}" if high else f"{low} or more"
        return f"a list of {count}, each {describe(schema.get('items', {}))}"
    if kind == "string":
        return "a text"
    return _describe_number(schema)


def _describe_number(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = ["a whole number"] if schema.get("type") == "integer" else []
    if low is not None and high is not None:
        parts.append(f"{low} to {high}")
    elif low is not None:
        parts.append(f"{low} or more")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {schema['exclusiveMinimum']}")
    if "exclusiveMaximum" in schema:
        parts.append(f"below {schema['exclusiveMaximum']}")
    if high is not None and low is None:
        parts.append(f"at most {high}")
    if "multipleOf" in schema:
        parts.append(f"a multiple of {schema['multipleOf']}")
    return ", ".join(parts) or "a number"
