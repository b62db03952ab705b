"""Weights by their MLflow URI."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import sha256
from medseg_ext.tracking.run import CHECKSUM, MODEL, WEIGHTS
from medseg_ext.tracking.store import is_of_store, quick_requests, reason, shown, store_in_environment
from medseg_ext.workflow.options import running_parser
from medseg_ext.workflow.run import one_line_errors

#: Of MLflow's URIs those that the store itself answers: an address within the URI would lead elsewhere.
_URI = re.compile(r"(?:models|runs|mlflow-artifacts):/(?!/)")
_ALLOWED = "a model version, or an artifact of a run, that is there"
_SQLITE = "sqlite:///"
_VERSION = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/]+))")
_RUN = re.compile(rf"runs:/(\w+)/{MODEL}(?:/{WEIGHTS})?")


@one_line_errors
def weights_file(path: str | Path, tracking_uri: str | None = None) -> Path:
    """The file of weights that a path or an MLflow URI names.

    Args:
        path: a file; or ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or ``runs:/RUN_ID/model``, as
            :class:`~medseg_ext.tracking.TrackedRun` logs them, or ``runs:/RUN_ID/FILE``. What is named so is fetched
            into a temporary folder, which is removed when the process ends.
        tracking_uri: the MLflow store; that of the config that is being run when None. ``MLFLOW_TRACKING_URI`` wins
            over both, as it does in MONAI.

    Returns:
        A path on this machine. A file is not looked at, what was fetched has the checksum it was logged with.

    Raises:
        SystemExit: after one line, when the store does not answer, has no such weights, or has others than were logged.
    """
    uri = str(path)
    if not _URI.match(uri):
        return Path(path)
    store = _store(uri, tracking_uri)
    # errors of what is in the file name its path, and so tell which weights they are
    name = re.sub(r"[^\w.]+", "-", uri)
    folder = tempfile.mkdtemp(prefix=f"{name}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with quick_requests(), store_in_environment(store):
        try:
            fetched, checksum = _fetch(uri, store, folder)
        except Exception as error:
            if not (is_of_store(error) or isinstance(error, OSError)):
                raise
            raise InputError(uri, f"nothing in {shown(store)} ({reason(error)})", _ALLOWED) from error
    weights = fetched / WEIGHTS if fetched.is_dir() else fetched
    if not weights.is_file():
        raise InputError(uri, f"a folder without {WEIGHTS}", "a model as training logs it, or a file of weights")
    if checksum is not None and sha256(weights) != checksum:
        raise InputError(uri, "other weights than were logged (their SHA-256 differs)", f"SHA-256 {checksum}")
    return weights


def _store(uri: str, tracking_uri: str | None) -> str:
    store = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri
    if not store:
        parser = running_parser()
        store = parser.get_parsed_content("tracking_uri") if "tracking_uri" in parser else None
    if not store:
        raise InputError(uri, "no MLflow store to look in", "one that --tracking_uri or MLFLOW_TRACKING_URI names")
    if store.startswith(_SQLITE) and not Path(store[len(_SQLITE) :]).is_file():  # MLflow would make an empty one
        raise InputError(
            uri, f"no MLflow store at {store}", "--tracking_uri or MLFLOW_TRACKING_URI of one that is there"
        )
    return store


def _fetch(uri: str, store: str, folder: str) -> tuple[Path, str | None]:
    """What an URI names, and the checksum that was logged with it, None where there is none."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
    checksum = _checksum(client, uri)
    path = mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=store)
    return Path(path), checksum


def _checksum(client: Any, uri: str) -> str | None:
    if found := _VERSION.fullmatch(uri):
        name, number, alias = found.groups()
        version = client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
        return version.tags.get(CHECKSUM)
    if found := _RUN.fullmatch(uri):
        return client.get_run(found[1]).data.tags.get(CHECKSUM)
    return None
