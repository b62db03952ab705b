"""Run engines so that bad input ends in one line and an exit status instead of pages of traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sized
from typing import Any, ParamSpec, TypeVar

from ignite.engine import Engine

from medseg_ext.errors import InputError, print_error

P = ParamSpec("P")
R = TypeVar("R")


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an :class:`InputError` into its line on stderr and exit status 1.

    ``monai.bundle run`` wraps any other exception into hundreds of lines that end far from the cause; a ``SystemExit``
    passes through it.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            print_error(error)
            raise SystemExit(1) from None

    return wrapped


@one_line_errors
def run_engine(engine: Engine, failures: Sized = (), **kwargs: Any) -> None:
    """Run a MONAI trainer or evaluator.

    Args:
        engine: its ``run`` is called with ``kwargs``.
        failures: patients that failed before or meanwhile.

    Raises:
        SystemExit: status 1 after an input error, and in the end when ``failures`` is not empty.
    """
    engine.run(**kwargs)
    if len(failures):
        raise SystemExit(1)
