"""Tell whether what is written to stays below the folder that a bundle is started in, without evaluating anything.

A config says where to write by a text, by a reference to another of its values, or by an expression that puts texts and
references together. The first part has to be a relative path that leads down, or a value of which that is true, and
where something stands behind it, it cannot be empty; what is put behind it has to be free of ``..``, of hidden names
and of anything whose text cannot be told. Where a user's own ``--output_dir`` leads is the user's affair.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Callable, Sequence

#: Paths that lead nowhere but down: no root, no home, no scheme, no hidden part, no way back.
RELATIVE_PATH = re.compile(r"(?![\w.+-]*:)(?![~/])(?!(.*/)?\.(?!/|$))[^\\$@%\0]*", re.DOTALL)
#: What may be put behind such a path, together with others: a dot stands within a name, and not behind what a date may
#: leave empty; a colon makes no scheme or drive of what stands before it; a code of a date is whole.
PATH_PART = re.compile(r"(?![^/]*:)([^\\.%\0]|%[A-DF-NP-Za-z%]|(?<=\w)(?<!%[Zzp])\.(?=\w))*", re.DOTALL)

#: Functions of one path that lead nowhere else, and those that lead below it or give None.
_SAME = {"os.path.abspath", "os.path.normpath", "os.path.realpath"}
_BELOW = {"medseg_ext.workflow.training_dir", "medseg_ext.workflow.served_weights"}
_JOINING = "os.path.join"


class Part(enum.Enum):
    """What a value is of a path."""

    #: All of it; it may be empty or None.
    WHOLE = enum.auto()
    #: Its first part, behind which stands a slash: empty, it would leave a path from the root.
    HEAD = enum.auto()
    #: Its first part, behind which may stand a letter: ``.`` would become a hidden name.
    STEM = enum.auto()
    #: A later one that begins with a slash.
    SLASH = enum.auto()
    #: Any later one.
    REST = enum.auto()

    @property
    def is_first(self) -> bool:
        """Whether it says where a path begins."""
        return self in {Part.WHOLE, Part.HEAD, Part.STEM}


class Destination:
    """The parts of an expression that names a place to write to.

    Args:
        means: full names that a function in the expression may stand for.
        id_of: the id that a node refers to, None for what is no reference.
        follow: whether what a config holds under an id fits, as this part of a path.
        is_file_name: whether an attribute of what a config holds under an id is a name of a file, without folders.
    """

    def __init__(
        self,
        means: Callable[[ast.AST], set[str]],
        id_of: Callable[[ast.AST], str | None],
        follow: Callable[[str, Part], bool],
        is_file_name: Callable[[str, str], bool] = lambda id_, attribute: False,
    ) -> None:
        self.means = means
        self.id_of = id_of
        self.follow = follow
        self.is_file_name = is_file_name
        self.bound: dict[str, Sequence[ast.AST]] = {}

    def fits_all(self, node: ast.AST) -> bool:
        """Whether an expression is a list of paths that lead down."""
        if isinstance(node, ast.List | ast.Tuple):
            return all(self.fits(item) for item in node.elts)
        if isinstance(node, ast.IfExp):
            return self.fits_all(node.body) and self.fits_all(node.orelse)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.fits_all(node.left) and self.fits_all(node.right)
        return isinstance(node, ast.ListComp) and self._fits_each(node)

    def _fits_each(self, node: ast.ListComp) -> bool:
        """A name that a comprehension binds is each of the values that stand there, and nothing else."""
        bound: dict[str, Sequence[ast.AST]] = {}
        for loop in node.generators:
            if not isinstance(loop.target, ast.Name) or not isinstance(loop.iter, ast.List | ast.Tuple):
                return False
            bound[loop.target.id] = loop.iter.elts
        inner = Destination(self.means, self.id_of, self.follow, self.is_file_name)
        inner.bound = bound
        return len(bound) == len(node.generators) and inner.fits(node.elt)

    def fits(self, node: ast.AST, part: Part = Part.WHOLE) -> bool:
        """Whether an expression can be this part of a path that leads down."""
        id_ = self.id_of(node)
        if id_ is not None:
            return self.follow(id_, part)
        if isinstance(node, ast.Constant):
            return fits_text(node.value, part)
        if isinstance(node, ast.Name):
            values = self.bound.get(node.id, ())
            return bool(values) and all(isinstance(v, ast.Constant) and fits_text(v.value, part) for v in values)
        if isinstance(node, ast.Attribute):
            owner = self.id_of(node.value)
            return owner is not None and part in {Part.HEAD, Part.REST} and self.is_file_name(owner, node.attr)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._fit_together([node.left, node.right], part)
        if isinstance(node, ast.IfExp):
            return self.fits(node.body, part) and self.fits(node.orelse, part)
        if isinstance(node, ast.BoolOp):
            return self._fits_choice(node, part)
        if isinstance(node, ast.JoinedStr):
            if not all(isinstance(v, ast.Constant) or _is_plain(v) for v in node.values):
                return False
            values = [v.value if isinstance(v, ast.FormattedValue) else v for v in node.values]
            return self._fit_together(values, part) if values else fits_text("", part)
        return isinstance(node, ast.Call) and self._fits_call(node, part)

    def _fit_together(self, nodes: Sequence[ast.AST], part: Part) -> bool:
        """Texts one behind the other."""
        if part.is_first and len(nodes) > 1:
            part = Part.HEAD if self.fits(nodes[1], Part.SLASH) else Part.STEM
        return self.fits(nodes[0], part) and all(self.fits(node, Part.REST) for node in nodes[1:])

    def _fits_choice(self, node: ast.BoolOp, part: Part) -> bool:
        *others, last = node.values
        # of ``a or b`` the first is taken where it is not empty
        maybe = Part.WHOLE if part is Part.HEAD and isinstance(node.op, ast.Or) else part
        return self.fits(last, part) and all(self.fits(value, maybe) for value in others)

    def _fits_call(self, node: ast.Call, part: Part) -> bool:
        if node.keywords or not node.args:
            return False
        names = self.means(node.func)
        is_text = isinstance(node.func, ast.Name) and node.func.id == "str"  # which no import binds
        if is_text or (names and names <= _SAME):
            # what stands behind the bundle's own folder, as an absolute path, would be the name of a neighbour
            return len(node.args) == 1 and (is_text or part is not Part.STEM) and self.fits(node.args[0], part)
        if names and names <= _BELOW:
            return len(node.args) == 1 and part.is_first and self.fits(node.args[0])
        if names == {_JOINING}:
            return self._fit_joined(node.args, part)
        is_date = isinstance(node.func, ast.Attribute) and node.func.attr == "strftime"
        return is_date and all(self.fits(argument, part) for argument in node.args)

    def _fit_joined(self, nodes: Sequence[ast.AST], part: Part) -> bool:
        if part.is_first:
            # each stands alone where those before it end, and would alone if it began at the root
            return all(self.fits(node) for node in nodes) and self.fits(nodes[-1], part)
        return self.fits(nodes[0], part) and all(self.fits(node, Part.REST) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    return isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion == -1


def fits_text(value: object, part: Part) -> bool:
    """Whether a literal can be this part of a path."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value is None and part is Part.WHOLE
    if not isinstance(value, str):
        return part is Part.REST
    if not part.is_first:
        return bool(PATH_PART.fullmatch(value)) and (part is Part.REST or value.startswith("/"))
    if not RELATIVE_PATH.fullmatch(value):
        return False
    return part is Part.WHOLE or (bool(value) and (part is Part.HEAD or not value.endswith(".")))
