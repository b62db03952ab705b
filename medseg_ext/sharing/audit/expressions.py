"""Check ``$`` expressions, without evaluating them: a subset of Python over names of the allow-list.

MONAI hands the text behind ``$`` to ``eval`` (or imports what an import statement names) after it has replaced each
reference, ``@id``, by an expression of its own. The replacement is one of text and reaches into quotes, so it is
repeated here to the letter and the result is what is parsed.

What is allowed: arithmetic, comparisons, literals, comprehensions, ``lambda``, f-strings; calls; names of the
allow-list, in full or through the config's ``imports``; a few of Python's functions; references; and of a value whose
type cannot be known, the attributes of :data:`~medseg_ext.sharing.audit.rules.ATTRIBUTES`. No attribute with a leading
underscore, no module as a value, no ``**`` into a call, no name bound over another. ``replace`` of a value is called
with what is replaced and by what: with one argument it would be that of a path, which moves a file.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from medseg_ext.sharing.audit.names import DEFAULT_GLOBALS, AllowedNames
from medseg_ext.sharing.audit.rules import (
    ATTRIBUTES,
    BUILTINS,
    ENVIRONMENT,
    RESTRICTED,
    SWITCHES,
    UNRESTRICTED_FIRST,
    restricted_of,
)
from medseg_ext.sharing.findings import quoted

#: Under which id MONAI puts the metadata.
METADATA = "_meta_"
#: What a reference becomes.
REFERENCES = "__local_refs"
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_MOST_CHARACTERS = 20_000
_LARGEST_POWER = 64

_NODES = (
    *(ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp),
    *(ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Call, ast.Constant, ast.Attribute, ast.Subscript),
    *(ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice, ast.JoinedStr, ast.FormattedValue),
    *(ast.keyword, ast.comprehension, ast.arguments, ast.arg, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.Load, ast.Store),
)


class ExpressionError(ValueError):
    """What an expression holds that is not allowed."""


def substitute(text: str) -> str:
    """The Python that MONAI makes of an expression, given without its ``$``: every ``@id`` replaced, longest first."""
    text = text.replace("#", "::")
    for found in sorted(_REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(found, f"{REFERENCES}['{found[1:]}']")
    return text


def reference_of(node: ast.AST) -> str | None:
    """The id that a substituted reference is to; None for anything else."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant):
        return None
    is_reference = isinstance(node.value, ast.Name) and node.value.id == REFERENCES
    return node.slice.value if is_reference and isinstance(node.slice.value, str) else None


def leads_to_module(id_: str, modules: Iterable[str]) -> bool:
    """Whether a reference to an id, in the metadata or not, gives a module or what holds one."""
    if id_ == METADATA:
        return False  # metadata.json may import nothing
    id_ = id_.removeprefix(f"{METADATA}::")
    return any(not id_ or id_ == m or id_.startswith(f"{m}::") or m.startswith(f"{id_}::") for m in modules)


def import_of(text: str) -> tuple[str, str] | None:
    """Name and full origin that an expression, given without its ``$``, imports; None when it is no import.

    Raises:
        ExpressionError: it cannot be parsed, or is more than one import of one name.
    """
    if "import" not in text:
        return None
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # no import: it will be looked at as an expression
    if not body or not isinstance(body[0], ast.Import | ast.ImportFrom):
        return None
    first = body[0]
    if len(body) > 1 or len(first.names) > 1:
        raise ExpressionError(f"more than one import in {quoted(text)}")
    name, alias = first.names[0].name, first.names[0].asname
    if isinstance(first, ast.ImportFrom):
        if first.level or not first.module:
            raise ExpressionError(f"a relative import, {quoted(text)}")
        return alias or name, f"{first.module}.{name}"
    return alias or name, name


@dataclass
class Scope:
    """What names stand for in the expressions of a bundle.

    Args:
        allowed: the allow-list.
        imports: what the ``imports`` of all configs bind, to everything that any of them binds it to: which configs are
            merged is the user's choice.
        modules: ids under which a config holds a module, by an import statement.
        leads_down: whether an argument names a place that may be written to.
    """

    allowed: AllowedNames
    imports: Mapping[str, frozenset[str]] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    leads_down: Callable[[ast.AST], bool] = lambda node: False

    def check_import(self, text: str) -> tuple[str, str] | None:
        """:func:`import_of` for what the bundle may import.

        Raises:
            ExpressionError: for any other.
        """
        bound = import_of(text)
        if bound is None:
            return None
        name, origin = bound
        if origin not in self.allowed.modules and origin not in self.allowed.values:
            raise ExpressionError(f"an import of {quoted(origin)}")
        if name.startswith("_") or hasattr(builtins, name):
            raise ExpressionError(f"an import as {quoted(name)}")
        return bound

    def meanings(self, name: str) -> frozenset[str]:
        """The full names that a bare one may stand for."""
        default = DEFAULT_GLOBALS.get(name)
        return self.imports.get(name, frozenset()) | (frozenset() if default is None else frozenset({default}))

    def means(self, node: ast.AST) -> set[str]:
        """The full names that a dotted one may stand for."""
        root, parts = _chain(node)
        if not isinstance(root, ast.Name):
            return set()
        return {".".join([meaning, *parts]) for meaning in self.meanings(root.id)}


def check_expression(text: str, scope: Scope) -> None:
    """Check an expression.

    Args:
        text: what stands behind ``$``, with references.
        scope: what names mean.

    Raises:
        ExpressionError: for the first thing that is not allowed.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ExpressionError(f"an expression of {len(text)} characters")
    source = substitute(text)
    try:
        tree = ast.parse(source, mode="eval")
        _Checker(scope, _bound_names(tree, scope)).check(tree.body)
    except (SyntaxError, ValueError, MemoryError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"an expression that cannot be parsed, {quoted(text)}") from error
    except RecursionError as error:
        raise ExpressionError("an expression nested too deeply") from error


def _bound_names(tree: ast.AST, scope: Scope) -> frozenset[str]:
    bound = set()
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ExpressionError(f"{type(node).__name__} in an expression")
        name = ""
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if name:
            if name.startswith("_") and name != "_":
                raise ExpressionError(f"the name {quoted(name)}")
            if scope.meanings(name) or hasattr(builtins, name):
                raise ExpressionError(f"the name {name} bound over another")
            bound.add(name)
    return frozenset(bound)


@dataclass
class _Checker:
    scope: Scope
    bound: frozenset[str]

    def check(self, node: ast.AST) -> None:
        """Check a node that stands for a value, and all in it."""
        if isinstance(node, ast.Name | ast.Attribute):
            self._check_value(node)
        elif isinstance(node, ast.Call):
            self._check_call(node)
        elif isinstance(node, ast.Subscript):
            self._check_subscript(node)
        else:
            if isinstance(node, ast.Dict):
                self._check_keys(node)
            if isinstance(node, ast.BinOp):
                _check_power(node)
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    continue
                self.check(child)

    def _check_value(self, node: ast.Name | ast.Attribute) -> None:
        root, parts = _chain(node)
        if not isinstance(root, ast.Name):
            self.check(root)
            _check_attributes(parts)
            return
        name = root.id
        if name in self.bound:
            _check_attributes(parts)
            return
        meanings = self.scope.meanings(name)
        if not meanings and name in BUILTINS:
            _check_attributes(parts)
            return
        if name == REFERENCES:
            raise ExpressionError("all references at once")
        if not meanings:
            raise ExpressionError(f"the name {quoted(name)}")
        for meaning in meanings:
            self._check_name(meaning.split(".") + parts)

    def _check_name(self, parts: list[str]) -> None:
        """The longest allowed name at the start counts; what follows are attributes of it."""
        for end in range(len(parts), 0, -1):
            if ".".join(parts[:end]) in self.scope.allowed.values:
                _check_attributes(parts[end:])
                return
        raise ExpressionError(f"the name {quoted('.'.join(parts))}")

    def _check_subscript(self, node: ast.Subscript) -> None:
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if isinstance(node.value, ast.Name) and node.value.id == REFERENCES:
            id_ = reference_of(node)
            if not id_:
                raise ExpressionError("a reference to no id")
            if leads_to_module(id_, self.scope.modules):
                raise ExpressionError(f"a reference to a module, @{quoted(id_)}")
            return
        if self._is_environment(node.value):
            if key not in ENVIRONMENT:
                raise ExpressionError(f"os.environ[{quoted(ast.unparse(node.slice))}]")
            return
        self.check(node.value)
        self.check(node.slice)

    def _is_environment(self, node: ast.AST) -> bool:
        return self._means(node) == {"os.environ"}

    def _check_call(self, node: ast.Call) -> None:
        places = self._places(node)
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ExpressionError("arguments given by **")
            if (keyword.arg in RESTRICTED and keyword.arg not in places) or keyword.arg.startswith("_"):
                raise ExpressionError(f"the argument {keyword.arg} in an expression")
        function = node.func
        if isinstance(function, ast.Name) and function.id == "setattr":
            self._check_switch(node)
            return
        if isinstance(function, ast.Attribute) and function.attr == "get" and self._is_environment(function.value):
            first = node.args[0] if node.args else None
            if not isinstance(first, ast.Constant) or first.value not in ENVIRONMENT:
                raise ExpressionError(f"{quoted(ast.unparse(node))}")
        elif isinstance(function, ast.Attribute) and function.attr == "replace":
            if len(node.args) < 2 or node.keywords:
                raise ExpressionError("replace with one argument")
            self.check(function.value)
        elif places:
            self._check_places(node, places)
        elif not self._is_plain_component(node):
            self.check(function)
        if (
            isinstance(function, ast.Name)
            and function.id == "print"
            and {k.arg for k in node.keywords} - {"sep", "end"}
        ):
            raise ExpressionError("print to a file")
        if isinstance(function, ast.Attribute) and function.attr == "eval" and (node.args or node.keywords):
            raise ExpressionError("eval of something")  # a network's takes nothing, a table's takes code
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.check(argument.value if isinstance(argument, ast.Starred) else argument)

    def _means(self, node: ast.AST) -> set[str]:
        root, _ = _chain(node)
        return set() if isinstance(root, ast.Name) and root.id in self.bound else self.scope.means(node)

    def _places(self, node: ast.Call) -> dict[str, int]:
        """The arguments by which what is called is told where to write."""
        places: dict[str, int] = {}
        meanings = self._means(node.func)
        writers = self.scope.allowed.writers
        if meanings and all(meaning in writers for meaning in meanings):
            for meaning in meanings:
                places.update(writers[meaning])
        return places

    def _check_places(self, node: ast.Call, places: Mapping[str, int]) -> None:
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            raise ExpressionError(f"arguments given by * to {quoted(ast.unparse(node.func))}")
        given = {name: node.args[place] for name, place in places.items() if 0 <= place < len(node.args)}
        given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg and keyword.arg in places}
        for name, value in given.items():
            if not self.scope.leads_down(value):
                raise ExpressionError(f"the argument {name} in an expression, {quoted(ast.unparse(value))}")

    def _is_plain_component(self, node: ast.Call) -> bool:
        """A component of which an argument is restricted, called so that this argument is not given."""
        meanings = self._means(node.func)
        components = self.scope.allowed.components
        given = {keyword.arg for keyword in node.keywords}
        return bool(meanings) and all(
            components.get(meaning) == ()
            and len(node.args) <= UNRESTRICTED_FIRST.get(meaning, 0)
            and not given & restricted_of(meaning).keys()
            for meaning in meanings
        )

    def _check_switch(self, node: ast.Call) -> None:
        if len(node.args) == 3 and not node.keywords:
            target, name, value = node.args
            if isinstance(name, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, bool):
                switches = {f"{meaning}.{name.value!s}" for meaning in self._means(target)}
                if switches and switches <= SWITCHES:
                    return
        raise ExpressionError(quoted(ast.unparse(node)))

    def _check_keys(self, node: ast.Dict) -> None:
        for key in node.keys:
            if isinstance(key, ast.Constant) and (key.value in RESTRICTED or key.value == "_target_"):
                raise ExpressionError(f"the key {key.value!r} in an expression")


def _chain(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """The innermost value and the attributes taken of it."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node, parts[::-1]


def _check_attributes(names: list[str]) -> None:
    for name in names:
        if name not in ATTRIBUTES:
            raise ExpressionError(f"the attribute {quoted(name)}")


def _check_power(node: ast.BinOp) -> None:
    """Numbers that take all of memory, or hours, to write down."""
    if not isinstance(node.op, ast.Pow | ast.LShift):
        return
    for side in (node.left, node.right):
        if any(isinstance(part, ast.BinOp) and isinstance(part.op, ast.Pow | ast.LShift) for part in ast.walk(side)):
            raise ExpressionError("a power or shift with another in it")
    for part in _constants(node.right):
        if abs(part) > _LARGEST_POWER:
            raise ExpressionError(f"a power of {part}")


def _constants(node: ast.AST) -> Iterator[float]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, int | float):
            yield part.value
