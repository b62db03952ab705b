"""Run engines so that bad input ends in one line and an exit status instead of pages of traceback."""

from __future__ import annotations

import functools
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ignite.engine import Engine

from medseg_ext.errors import InputError, input_error_in, print_error, wants_traceback
from medseg_ext.processes import gather_objects, lost_process
from medseg_ext.workflow.failures import NothingLeftError
from medseg_ext.workflow.stream import go_past_failures

P = ParamSpec("P")
R = TypeVar("R")
#: Exit status of a process that a signal ended, as shells have it.
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an :class:`~medseg_ext.errors.InputError`, wrapped or not, into its line on stderr and exit status 1.

    An interrupt from the keyboard becomes a line and status 130 likewise.

    ``monai.bundle run`` wraps any other exception into hundreds of lines that end far from the cause; a ``SystemExit``
    passes through it.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            known = input_error_in(error)
            if known is None:
                raise
            print_error(known)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            _print_interrupted()
            raise SystemExit(INTERRUPTED) from None

    return wrapped


def _print_interrupted() -> None:
    print("interrupted", file=sys.stderr, flush=True)


def one_line_interrupts() -> None:
    """From now on an interrupt from the keyboard ends this process in one line, wherever it hits.

    A config's components take their time before an engine runs, in code that is not ours to wrap.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt) and not wants_traceback():
            _print_interrupted()
            raise SystemExit(INTERRUPTED)
        before(kind, error, trace)

    sys.excepthook = hook


def _is_news(record: logging.LogRecord) -> bool:
    """False for what is logged while an error is on its way up that has, or gets, a line of its own."""
    error = sys.exc_info()[1]
    quiet = isinstance(error, (NothingLeftError, KeyboardInterrupt, SystemExit)) or _of_mlflow(error)
    return not quiet and input_error_in(error) is None and lost_process(error) is None


def _of_mlflow(error: BaseException | None) -> bool:
    if "mlflow" not in sys.modules:
        return False
    from medseg_ext.tracking.store import is_of_store  # which needs this module

    return is_of_store(error)


@contextmanager
def _quiet_input_errors() -> Iterator[None]:
    """Keep engines and their handlers from logging an input error, with its traceback, once each on its way up."""
    if wants_traceback():
        yield
        return
    loggers = [logging.getLogger(), *(x for x in logging.root.manager.loggerDict.values() if hasattr(x, "handlers"))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    handlers += [logging.lastResort] if logging.lastResort else []
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)


@one_line_errors
def run_engine(
    engine: Engine, failures: Sized = (), tracked: AbstractContextManager[Any] | None = None, **kwargs: Any
) -> None:
    """Run a MONAI trainer or evaluator, the latter past patients who fail (:func:`~.stream.go_past_failures`).

    Args:
        engine: its ``run`` is called with ``kwargs``.
        failures: patients that failed before or meanwhile.
        tracked: entered around the run, as :class:`~medseg_ext.tracking.TrackedRun`.

    Raises:
        SystemExit: status 1 after an input error, and in the end when ``failures`` is not empty in any process, so that
            none is stopped on account of another's; 130 when interrupted from the keyboard.
    """
    if engine.state.epoch_length == 0:  # MONAI would skip the run with a warning and succeed
        raise InputError("batch_size", "no whole batch in an epoch", "at most the samples an epoch of each process")
    go_past_failures(engine)
    try:
        with _quiet_input_errors(), tracked or nullcontext():
            engine.run(**kwargs)
    except NothingLeftError:
        raise SystemExit(1) from None
    if sum(gather_objects(len(failures))):
        raise SystemExit(1)
