"""Tell whether what is written to stays below the folder that a bundle is started in, without evaluating anything.

A config says where to write by a text, by a reference to another of its values, or by an expression that puts texts and
references together. The first part has to be a relative path that leads down, or a value of which that is true; what is
put behind it has to be free of ``..``, of hidden names and of anything whose text cannot be told. Where a user's own
``--output_dir`` leads is the user's affair.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

#: Paths that lead nowhere but down: no root, no home, no scheme, no hidden part, no way back.
RELATIVE_PATH = re.compile(r"(?![\w.+-]*:)(?![~/])(?!(.*/)?\.(?!/|$))[^\\$@%\0]*", re.DOTALL)
#: What may be put behind such a path, together with others: a dot stands within a name.
PATH_PART = re.compile(r"([^\\.\0]|(?<=\w)\.(?=\w))*", re.DOTALL)

#: Functions of one path that lead nowhere else, or below it, and the one that puts several together.
_KEEPING = {"os.path.abspath", "os.path.normpath", "os.path.realpath", "medseg_ext.workflow.training_dir"}
_JOINING = "os.path.join"


class Destination:
    """The parts of an expression that names a place to write to.

    Args:
        means: full names that a function in the expression may stand for.
        id_of: the id that a node refers to, None for what is no reference.
        follow: whether what a config holds under an id fits, as the first part of a path (True) or as a later one.
    """

    def __init__(
        self,
        means: Callable[[ast.AST], set[str]],
        id_of: Callable[[ast.AST], str | None],
        follow: Callable[[str, bool], bool],
    ) -> None:
        self.means = means
        self.id_of = id_of
        self.follow = follow

    def fits(self, node: ast.AST, first: bool = True) -> bool:
        """Whether an expression is a path that leads down (``first``), or can be put behind one."""
        id_ = self.id_of(node)
        if id_ is not None:
            return self.follow(id_, first)
        if isinstance(node, ast.Constant):
            return fits_text(node.value, first)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.fits(node.left, first) and self.fits(node.right, False)
        if isinstance(node, ast.IfExp):
            return self.fits(node.body, first) and self.fits(node.orelse, first)
        if isinstance(node, ast.BoolOp):
            return all(self.fits(value, first) for value in node.values)
        if isinstance(node, ast.JoinedStr):
            return all(self._fits_piece(value, first and not number) for number, value in enumerate(node.values))
        return isinstance(node, ast.Call) and self._fits_call(node, first)

    def _fits_piece(self, node: ast.AST, first: bool) -> bool:
        if isinstance(node, ast.FormattedValue):
            return node.format_spec is None and node.conversion == -1 and self.fits(node.value, first)
        return self.fits(node, first)

    def _fits_call(self, node: ast.Call, first: bool) -> bool:
        if node.keywords or not node.args:
            return False
        names = self.means(node.func)
        is_text = isinstance(node.func, ast.Name) and node.func.id == "str"  # which no import binds
        if is_text or (names and names <= _KEEPING):
            return len(node.args) == 1 and self.fits(node.args[0], first)
        if names == {_JOINING}:
            # each stands alone where those before it end, and would alone if it began at the root
            return all(self.fits(part) for part in node.args)
        is_date = isinstance(node.func, ast.Attribute) and node.func.attr == "strftime"
        return is_date and all(self.fits(part, first) for part in node.args)


def fits_text(value: object, first: bool) -> bool:
    """Whether a literal leads down (``first``) or can be put behind what does."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value is None and first
    if not isinstance(value, str):
        return not first
    return bool((RELATIVE_PATH if first else PATH_PART).fullmatch(value))
