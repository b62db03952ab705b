"""An MLflow store that may not answer: wait for seconds, and say so in one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
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
def quick_requests(store: str | None = None) -> Iterator[None]:
    """Make requests to a server fail within seconds; what the user's environment sets holds.

    Args:
        store: its URI, for what of MLflow takes none; None to leave that as it is.
    """
    added = {name: value for name, value in _QUICK.items() if name not in os.environ}
    if store is not None and "MLFLOW_TRACKING_URI" not in os.environ:
        added["MLFLOW_TRACKING_URI"] = store
    connections = logging.getLogger("urllib3.connectionpool")  # tells of each attempt, at a server that is not there
    level = connections.level
    os.environ.update(added)
    connections.setLevel(logging.ERROR)
    try:
        yield
    finally:
        connections.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def is_of_store(error: BaseException | None) -> bool:
    """Whether an error is one that MLflow, or the connection to its server, raised."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    return isinstance(error, (MlflowException, RequestException))


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
