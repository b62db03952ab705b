"""Read a config overlay, refuse what a config would swallow in silence, and find the part that scoring needs too."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import ID_SEP_KEY, MERGE_KEY, merge_kv

from medseg_ext.errors import InputError
from medseg_ext.files import check_regular

Config = dict[str, Any]
#: Belongs to what is recorded of a run, which each config says for itself.
_RECORDED = "hyper_parameters"


def read_yaml(path: Path, allowed: str) -> Any:
    """Content of a YAML file.

    Raises:
        InputError: it is missing or no YAML.
    """
    check_regular(path, allowed)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(path, "no such file", allowed) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(path, f"no readable YAML ({' '.join(str(error).split())})", allowed) from error


def read_overlay(path: Path) -> Config:
    """An overlay as it is merged over a config: values by id.

    Raises:
        InputError: it is missing, no YAML, or no mapping.
    """
    content = read_yaml(path, "an overlay in YAML: values by id")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(path, f"a {type(content).__name__}", "an overlay in YAML: values by id")
    return content


def merged_config(paths: Sequence[Path]) -> Config:
    """Config files merged as ``monai.bundle run`` merges them.

    Raises:
        InputError: one of them changes what is not there.
    """
    parser = ConfigParser(config={})
    for path in paths:
        try:
            for key, value in ConfigParser.load_config_file(str(path)).items():
                merge_kv(parser, key, value)
        except (KeyError, ValueError, TypeError) as error:
            said = " ".join(str(error).split())
            raise InputError(
                path, f"a key of nothing that is there ({said})", "ids of the configs before it"
            ) from error
    config: Config = parser.get()
    return config


def check_overlays(paths: Sequence[Path], base: Sequence[Path]) -> Config:
    """Refuse overlays with a key that changes nothing, or a component that cannot be made.

    A key of a config that nothing refers to has no effect, and nobody hears of it: ``netwrok_def`` would train the
    network as it was. A new key is allowed where another one refers to it by ``@``. Components need a ``_target_`` that
    is there and takes the arguments given.

    Args:
        paths: overlays, in the order in which they are merged.
        base: the configs below them.

    Returns:
        the overlays' own keys, merged.

    Raises:
        InputError: naming the file, the key, and what is near it.
    """
    together: Config = {}
    for number, path in enumerate(paths):
        known, overlay = merged_config([*base, *paths[:number]]), read_overlay(path)
        referred = set(_references({**known, **overlay}))
        for key, value in overlay.items():
            parts = _parts(key)
            _check_key(path, parts, known, referred)
            for component in _components(value):
                _check_component(path, component)
        together |= overlay
    merged = merged_config([*base, *paths])
    for path in paths:
        for key in read_overlay(path):
            _check_owner(path, _parts(key), merged)
    return together


def shared_with(overlay: Mapping[str, Any], config: Mapping[str, Any]) -> Config:
    """The part of a training's overlay that another config has a use for, as a network has one in ``inference.json``.

    Args:
        overlay: values by id.
        config: the other config.

    Returns:
        Keys whose first part the other config has too, and new ones that those refer to.
    """
    kept = {k: v for k, v in overlay.items() if _parts(k)[0] in config and _parts(k)[0] != _RECORDED}
    while more := {
        key: value
        for key, value in overlay.items()
        if key not in kept and _parts(key)[0] in set(_references(kept)) and _parts(key)[0] not in config
    }:
        kept |= more
    return kept


def _parts(key: str) -> list[str]:
    return ReferenceResolver.normalize_id(key.removeprefix(MERGE_KEY)).split(ID_SEP_KEY)


def _check_key(path: Path, parts: Sequence[str], config: Any, referred: set[str]) -> None:
    if len(parts) == 1 and parts[0] in referred:
        return
    for depth, part in enumerate(parts):
        if depth and depth == len(parts) - 1 and ConfigComponent.is_instantiable(config):
            return  # an argument more, which is checked with its component
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping) and part in config:
            config = config[part]
        else:
            near = difflib.get_close_matches(part, list(config) if isinstance(config, Mapping) else [], n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            unknown = ID_SEP_KEY.join(parts[: depth + 1])
            raise InputError(path, f"an unknown key {unknown!r}", f"a key of the configs below it{hint}")


def _check_owner(path: Path, parts: Sequence[str], config: Any) -> None:
    """The component that a key like ``train#sampler#samples`` gives an argument to has to take it."""
    for part in parts[:-1]:
        config = config[int(part)] if isinstance(config, list) else config[part]
        if isinstance(config, Mapping) and ConfigComponent.is_instantiable(config):
            _check_component(path, config)


def _components(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if ConfigComponent.is_instantiable(value):
            yield value
        for part in value.values():
            yield from _components(part)
    elif isinstance(value, list):
        for part in value:
            yield from _components(part)


def _check_component(path: Path, component: Mapping[str, Any]) -> None:
    target = component["_target_"]
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        return
    try:
        name = ConfigComponent(config=dict(component)).resolve_module_name()
        made = locate(name) if isinstance(name, str) else name
    except (ErrorDuringImport, ModuleNotFoundError, ValueError):
        made = None
    if not callable(made):
        raise InputError(path, f"_target_ {target}, which there is not", "a class or function that can be imported")
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):  # of some built-in types nothing is known
        return
    given = {key for key in component if not (key.startswith("_") and key.endswith("_"))}
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    if unknown := sorted(given - signature.parameters.keys()):
        raise InputError(
            path, f"{target} with an unknown argument {unknown[0]!r}", ", ".join(signature.parameters) or "none"
        )


def _references(value: Any) -> Iterator[str]:
    """First parts of the ids that a value refers to."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
    elif isinstance(value, str):
        yield from re.findall(r"[@%](\w+)", value)
