"""Check configs: every JSON and YAML file of a bundle, for any of them may be merged, named by a macro, or be metadata.

Each value is looked at where it stands, whatever it may be merged with:

- ``_target_`` is a literal text and on the allow-list;
- ``$`` expressions and imports pass :mod:`~medseg_ext.sharing.audit.expressions`;
- macros (``%``) name ids, not files; references (``@``) do not name modules;
- arguments that decide what is executed or fetched hold values of :data:`~medseg_ext.sharing.audit.rules.TEXTS`,
  by whichever key they are set, ``reader`` or ``train::dataset::transform::reader``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from medseg_ext.sharing.audit.destinations import Destination, Part, fits_text
from medseg_ext.sharing.audit.documents import Node
from medseg_ext.sharing.audit.expressions import (
    ExpressionError,
    Scope,
    check_expression,
    import_of,
    leads_to_module,
    reference_of,
    substitute,
)
from medseg_ext.sharing.audit.names import AllowedNames
from medseg_ext.sharing.audit.rules import FILE_NAMES, KEYWORDS, RESTRICTED, TEXTS, restricted_of
from medseg_ext.sharing.findings import Finding, quoted

SEPARATOR = "::"
_MOST_REFERENCES = 5
#: Arguments that may be an object of a class, and how the names of those classes end.
_NAMES_OF_CLASSES = {"reader": "Reader", "writer": "Writer", "merger": "Merger"}
#: Where modules may be had: elsewhere they would be values, which functions can be given. What is run is a list too.
_IMPORTS = re.compile(r"(imports|initialize|run|finalize)(::\d+)?")
_METADATA = "metadata.json"
_RELATIVE = re.compile(r"(?:@|%)(?:::)+")
_MACRO_FILE = re.compile(r".*\.(json|yaml|yml)(?=(?:::.*)|$)", re.IGNORECASE | re.DOTALL)

_LISTED = "an exact public name of the allow-list (--allow FILE adds to it)"
_SUBSET = "the subset of Python in `bundle.py audit --help`"


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its file, its id as MONAI numbers it, and the keys above it."""

    file: str
    id: str
    plain: bool = True

    def below(self, key: str) -> _Place:
        id_ = f"{self.id}{SEPARATOR}{key}" if self.id else key
        return _Place(self.file, id_, self.plain and bool(re.fullmatch(r"\w+", key)))


def check_configs(documents: Mapping[str, Node], allowed: AllowedNames) -> list[Finding]:
    """Check all configs of a bundle together.

    Args:
        documents: by path in the bundle.
        allowed: the allow-list.

    Returns:
        What is not allowed.
    """
    audit = _ConfigAudit(documents, allowed)
    for file, root in documents.items():
        audit.check_document(file, root)
    return audit.findings


@dataclass
class _ConfigAudit:
    documents: Mapping[str, Node]
    allowed: AllowedNames
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scope = Scope(self.allowed)
        self.scope = Scope(self.allowed, *self._imports(), self._leads_down)
        self.restricted = RESTRICTED | self._restricted_here()

    def _add(self, place: _Place, line: int, rule: str, found: str, allowed: str) -> None:
        self.findings.append(Finding(place.file, line, rule, found, allowed))

    def _restricted_here(self) -> dict[str, str]:
        """Arguments of the classes that components of any config are of: of which one a key is may depend on others."""
        rules: dict[str, str] = {}
        for file, root in self.documents.items():
            for _, node, _ in _walk(_Place(file, ""), root, None):
                for key, value in node.pairs or ():
                    if _last(key) == "_target_" and value.text is not None:
                        rules |= restricted_of(value.text)
        return rules

    def _imports(self) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
        """What imports bind, wherever they stand, and the ids under which modules can be had."""
        bound: dict[str, frozenset[str]] = {}
        modules: set[str] = set()
        for file, root in self.documents.items():
            for place, node, parent in _walk(_Place(file, ""), root, None):
                if node.text is None or not node.text.startswith("$"):
                    continue
                try:
                    found = import_of(node.text[1:])
                except ExpressionError:
                    continue  # reported where it is checked
                if found is not None:
                    bound[found[0]] = bound.get(found[0], frozenset()) | {found[1]}
                    # a list grows when configs are merged: none of its items is known by its number
                    in_list = parent is not None and parent.items is not None
                    modules.add(place.id.rpartition(SEPARATOR)[0] if in_list else place.id)
        return bound, frozenset(_normal(module) for module in modules)

    def check_document(self, file: str, root: Node) -> None:
        """Check one file; its top-level keys may address what stands deeper or in another file."""
        place = _Place(file, "")
        for key, value in root.pairs or ():
            merged = key.startswith("+") or SEPARATOR in _normal(key)
            for name, inner in [(key, value), *((value.pairs or ()) if key.startswith("+") else ())]:
                if merged and _last(name) == "_target_" and inner.text in self.allowed.components:
                    self._add(
                        place, inner.line, "target", f"{inner.text} merged into a component", "it in its own place"
                    )
        self._check(place, root)

    def _check(self, place: _Place, node: Node) -> None:
        if node.pairs is not None:
            keys = {_last(key): value for key, value in node.pairs}
            target = keys.get("_target_")
            if target is not None and target.text is not None and target.text in self.allowed.components:
                for needed in self.allowed.components[target.text]:
                    if needed not in keys:
                        self._add(place, target.line, "argument", f"{target.text} without {needed}", f"{needed}: false")
            if (
                "_mode_" in keys
                and keys["_mode_"].text != "default"
                and not (target and target.text in self.allowed.values)
            ):
                found = f"_mode_ {quoted(keys['_mode_'].value)}"
                self._add(
                    place,
                    keys["_mode_"].line,
                    "argument",
                    found,
                    "default, or a component without restricted arguments",
                )
            for key, value in node.pairs:
                self._check_key(place, _last(key), value)
                self._check_restricted(place, _normal(key).lstrip("+"), value)
                self._check(place.below(key.lstrip("+")), value)
        for number, item in enumerate(node.items or ()):
            self._check(place.below(str(number)), item)
        if node.text is not None:
            self._check_text(place, node, node.text)

    def _check_key(self, place: _Place, key: str, value: Node) -> None:
        if key == "_target_" and (value.text is None or not self.allowed.is_target(value.text)):
            shown = "no text" if value.text is None else quoted(value.text)
            self._add(place, value.line, "target", f"_target_ {shown}", _LISTED)

    def _check_restricted(self, place: _Place, key: str, value: Node) -> None:
        parts = _split(key)
        # an item of a list, set by its number
        last = next((part for part in reversed(parts) if not part.isdigit()), "")
        if last in self.restricted:
            rule = self.restricted[last]
            fits = self._fits(rule, value, _split(place.id), parts)
        else:  # an item of a mapping, set by its key
            above = next((n for n, part in enumerate(parts) if self.restricted.get(part) in KEYWORDS), None)
            if above is None:
                return
            rule = self.restricted[parts[above]]
            whole = above + 2 == len(parts)
            fits = _are_keywords(rule, [(parts[above + 1], value if whole else Node(value.line, pairs=[]))])
        if fits:
            return
        words = TEXTS[rule][1] if rule in TEXTS else rule
        shown = "a collection" if value.items is not None or value.pairs is not None else quoted(value.value)
        self._add(place, value.line, "argument", f"{key} {shown}", words)

    def _fits(
        self, rule: str, value: Node, parent: list[str], key: list[str], level: int = 0, owner: list[str] | None = None
    ) -> bool:
        """Whether a restricted argument is harmless, whatever other configs are merged with this one.

        Args:
            rule: its rule. value: what it is set to, here.
            parent: id of what it is an argument of. key: id below that.
            level: how many references led here.
            owner: id of what the first of them is an argument of.
        """
        path = [*parent, *key]
        owner = path[:-1] if owner is None else owner
        named = rule in _NAMES_OF_CLASSES
        if value.pairs is not None:
            targets = self._targets(path)
            if targets:  # a component that gives an object, and no text by which a class would be looked up
                return named and all(self._is_named_class(rule, target.text or "") for target in targets)
            # a description of data, as the schemas in options, belongs to no component
            return (rule in KEYWORDS and _are_keywords(rule, value.pairs)) or not (
                rule == "converter" or self._targets(owner)
            )
        if value.items is not None:
            items = enumerate(value.items)
            several = named or rule in {"names", "places"}
            return several and all(self._fits(rule, item, path, [str(number)], level, owner) for number, item in items)
        text = value.text
        if text is not None and _RELATIVE.search(_normal(text)):
            return False  # which id that is depends on where it is merged
        if text is not None and text.startswith("$"):
            if rule == "inside":
                return self._leads_down(_parsed(text[1:]))
            if rule == "places":
                parsed = _parsed(text[1:])
                return parsed is not None and (self._leads_down(parsed) or self._destination(0).fits_all(parsed))
            return named and self._makes_class(rule, text[1:])
        if text is not None and text.startswith("@") and level < _MOST_REFERENCES:
            target_path = _split(text[1:])
            nodes = list(self._named(target_path))
            return bool(nodes) and all(self._fits(rule, node, target_path, [], level + 1, owner) for node in nodes)
        if rule in {"true", "false", "none"}:
            return value.value is (rule == "true") or (rule != "true" and value.value is None)
        return text is None or bool(TEXTS[rule][0].fullmatch(text))

    def _targets(self, path: list[str]) -> list[Node]:
        """The ``_target_`` that any config gives to what has this id."""
        return list(self._named([*path, "_target_"], exactly=True))

    def _is_named_class(self, rule: str, name: str) -> bool:
        return self.allowed.is_target(name) and name.endswith(_NAMES_OF_CLASSES[rule])

    def _makes_class(self, rule: str, text: str) -> bool:
        """Whether an expression is the call of such a class and nothing around it; arguments are checked elsewhere."""
        tree = _parsed(text)
        origins = self.scope.means(tree.func) if isinstance(tree, ast.Call) else set()
        return bool(origins) and all(self._is_named_class(rule, origin) for origin in origins)

    def _leads_down(self, node: ast.AST | None, part: Part = Part.WHOLE, level: int = 0) -> bool:
        """Whether an expression names a place that may be written to, whatever else is merged (see ``Destination``)."""
        return node is not None and level <= _MOST_REFERENCES and self._destination(level).fits(node, part)

    def _destination(self, level: int) -> Destination:
        def follow(id_: str, part: Part) -> bool:
            nodes = list(self._named(_split(id_)))
            return bool(nodes) and all(self._holds_path(node, part, level + 1) for node in nodes)

        return Destination(self.scope.means, reference_of, follow, self._is_file_name)

    def _is_file_name(self, id_: str, attribute: str) -> bool:
        path = _split(id_)
        targets = self._targets(path)
        known = all(f"{target.text}.{attribute}" in FILE_NAMES for target in targets)
        return bool(targets) and known and all(node.pairs is not None for node in self._named(path))

    def _holds_path(self, node: Node, part: Part, level: int) -> bool:
        if node.pairs is not None:  # a description of data, as the schemas in options
            return part is Part.WHOLE and not any(_last(key) == "_target_" for key, _ in node.pairs)
        if node.text is None:
            return node.items is None and fits_text(node.value, part)
        text = _normal(node.text)
        if _RELATIVE.search(text) or text.startswith("%"):
            return False
        if text.startswith(("$", "@")):
            return self._leads_down(_parsed(text.removeprefix("$")), part, level)
        return fits_text(text, part)

    def _named(self, path: list[str], *, exactly: bool = False) -> Iterator[Node]:
        """What an id holds, in all configs; else also what stands above it and is no mapping: it may hold it too."""
        for root in self.documents.values():
            for key, value in root.pairs or ():
                parts = _normal(key).lstrip("+").split(SEPARATOR)
                if parts == path[: len(parts)]:
                    yield from _below(value, path[len(parts) :], exactly=exactly)

    def _check_text(self, place: _Place, node: Node, text: str) -> None:
        text = _normal(text)
        if _RELATIVE.search(text):
            if not place.plain:
                self._add(
                    place,
                    node.line,
                    "reference",
                    f"a relative id below the key {quoted(place.id)}",
                    "keys of letters, digits and _",
                )
                return
            absolute = _absolute(text, place.id)
            if absolute is None:
                self._add(place, node.line, "reference", f"a relative id, {quoted(node.text)}", "one inside the config")
                return
            text = absolute
        if text.startswith("%"):
            self._check_macro(place, node, text[1:])
        elif text.startswith("$"):
            self._check_expression(place, node, text[1:])
        elif re.fullmatch(r"@\w*(::\w*)*", text):
            self._check_reference(place, node, text[1:])

    def _check_macro(self, place: _Place, node: Node, text: str) -> None:
        if _MACRO_FILE.match(text):
            self._add(
                place, node.line, "macro", f"a macro that reads a file, {quoted('%' + text)}", "%id of a config's own"
            )
        else:
            self._check_reference(place, node, text)

    def _check_reference(self, place: _Place, node: Node, id_: str) -> None:
        if leads_to_module(id_, self.scope.modules):
            self._add(place, node.line, "reference", f"a reference to a module, {quoted(node.text)}", "values")

    def _check_expression(self, place: _Place, node: Node, text: str) -> None:
        try:
            if self.scope.check_import(text) is None:
                check_expression(text, self.scope)
            elif not _IMPORTS.fullmatch(place.id) or PurePosixPath(place.file).name == _METADATA:
                found = f"an import as the value of {quoted(place.id)}, {quoted(node.text)}"
                self._add(
                    place, node.line, "expression", found, "imports in the lists imports, initialize, run or finalize"
                )
        except ExpressionError as error:
            self._add(place, node.line, "expression", str(error), _SUBSET)


def _below(node: Node, path: list[str], *, exactly: bool) -> Iterator[Node]:
    if not path:
        yield node
    elif node.pairs is not None:
        for key, value in node.pairs:
            if key == path[0]:
                yield from _below(value, path[1:], exactly=exactly)
    elif node.items is not None and path[0].isdigit() and int(path[0]) < len(node.items):
        yield from _below(node.items[int(path[0])], path[1:], exactly=exactly)
    elif not exactly:
        yield node


def _walk(place: _Place, node: Node, parent: Node | None) -> Iterator[tuple[_Place, Node, Node | None]]:
    yield place, node, parent
    for key, value in node.pairs or ():
        yield from _walk(place.below(key.lstrip("+")), value, node)
    for number, item in enumerate(node.items or ()):
        yield from _walk(place.below(str(number)), item, node)


def _are_keywords(rule: str, pairs: Sequence[tuple[str, Node]]) -> bool:
    """Whether arguments for a function of torch are among those that name no place and no command line."""

    def fits(key: str, value: Node) -> bool:
        texts = KEYWORDS[rule].get(key, ())
        plain = value.pairs is None and value.items is None
        return key in KEYWORDS[rule] and (texts is None or (plain and value.text in {None, *texts}))

    return all(fits(key, value) for key, value in pairs)


def _parsed(text: str) -> ast.AST | None:
    """An expression, given without its ``$``; None for what is none."""
    try:
        return ast.parse(substitute(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _normal(id_: str) -> str:
    return id_.replace("#", SEPARATOR)


def _split(id_: str) -> list[str]:
    """The parts of an id."""
    return [part for part in _normal(id_).split(SEPARATOR) if part]


def _last(key: str) -> str:
    """What a key sets: ``train::dataset::reader`` is a ``reader``."""
    return _normal(key).split(SEPARATOR)[-1].lstrip("+")


def _absolute(text: str, id_: str) -> str | None:
    """Relative ids made absolute, as MONAI does; None for one that leads out of the config."""
    parts = _normal(id_).split(SEPARATOR)
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        levels = prefix.count(SEPARATOR)
        if levels > len(parts):
            return None
        new = "" if levels == len(parts) else SEPARATOR.join(parts[:-levels]) + SEPARATOR
        text = text.replace(prefix, prefix[0] + new)
    return text
