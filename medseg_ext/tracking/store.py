"""An MLflow store that may not answer: wait for seconds, and say so in one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from medseg_ext.errors import InputError, escaped

#: MLflow's own settings, 7 retries and 120 seconds, let a server that is not there take minutes.
_QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_ALLOWED = "a store that answers (--tracking_uri or MLFLOW_TRACKING_URI names it)"


@contextmanager
def store_in_environment(store: str) -> Iterator[None]:
    """Name a store where all of MLflow looks for it: artifacts of a server are not always found by the client's own.

    Args:
        store: its URI; what the user's environment names wins, as it does in MONAI.
    """
    with _environment({"MLFLOW_TRACKING_URI": store}):
        yield


@contextmanager
def quick_requests() -> Iterator[None]:
    """Make requests to a server fail within seconds; what the user's environment sets holds."""
    connections = logging.getLogger("urllib3.connectionpool")  # tells of each attempt, at a server that is not there
    level = connections.level
    connections.setLevel(logging.ERROR)
    try:
        with _environment(_QUICK):
            yield
    finally:
        connections.setLevel(level)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def is_of_store(error: BaseException | None) -> bool:
    """Whether an error is one that MLflow, or the connection to its server, raised."""
    from mlflow.exceptions import MlflowException

    # MLflow sends what it has to say by requests, and passes some of its exceptions on
    return isinstance(error, MlflowException) or type(error).__module__.startswith("requests.")


def store_error(uri: str, error: BaseException) -> InputError:
    """The error of a store, in place of what MLflow raised."""
    return InputError(shown(uri), f"no MLflow store that takes the run ({reason(error)})", _ALLOWED)


def reason(error: BaseException) -> str:
    """What MLflow or a library below it says, in a line."""
    if "Max retries exceeded" in str(error):
        return "its server fails" if "error responses" in str(error) else "no server answers there"
    return escaped(" ".join(str(error).split()))[:200] or type(error).__name__


def shown(uri: str) -> str:
    """A store's URI without a name and password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)
