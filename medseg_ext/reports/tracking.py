"""What an MLflow run needs besides the curves that MONAI logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from numpy.typing import NDArray

from medseg_ext.reports.examples import ExampleOverlays
from medseg_ext.reports.overlays import FileNames
from medseg_ext.reports.provenance import provenance

LONGEST_VALUE = 500  # characters of a parameter that every MLflow store takes


def track_run(
    engine: Engine,
    handlers: Iterable[Any],
    output_dir: str | Path,
    parameters: Mapping[str, Any] | None = None,
    files: Iterable[str | Path] = (),
    weights: str | Path | None = None,
) -> None:
    """Complete the run that ``--tracking mlflow`` records; do nothing where MONAI put no MLflow handler in.

    The executed config, files, parameters and provenance are logged when the engine starts, so that a run that crashes
    has them too, files of results when it ends, and example overlays as they are drawn. A run that continues keeps its
    parameters; values that differ since then stand in the tags ``changed.NAME``.

    With ``--output_dir OUT`` MONAI 1.6 hands its handler ``OUT + '/config_....json'`` as a path, the text of an
    expression that nobody evaluates, and logs no config. Here the file is found in ``output_dir``.

    Args:
        engine: trainer or evaluator, run afterwards.
        handlers: those of the engine and of its validation.
        output_dir: where MONAI exports the executed config to.
        parameters: by name, logged as text.
        files: files or folders to log as artifacts: at the start where they exist by then, and again at the end.
        weights: file whose checksum goes into the provenance.
    """
    handlers = list(handlers)
    recorders = [handler for handler in handlers if isinstance(handler, MLFlowHandler)]
    if not recorders:
        return
    recorder: Any = recorders[0]
    configs = [_exported(path, output_dir) for handler in recorders for path in handler.artifacts if path]
    wanted = [Path(path) for path in files if path]
    for handler in recorders[1:]:
        handler.artifacts = ()
    recorder.artifacts = tuple(wanted)

    def start() -> None:
        run = recorder.cur_run.info.run_id
        _log_parameters(recorder, run, parameters or {})
        for name, value in provenance(weights).items():
            recorder.client.set_tag(run, f"provenance.{name}", value[:5000])
        for path in [*configs, *(path for path in wanted if path.is_file())]:
            if path.is_file():
                recorder.client.log_artifact(run, str(path))

    names = FileNames()

    def log_picture(name: str, picture: NDArray[np.uint8], epoch: int) -> None:
        if recorder.cur_run is not None:
            path = f"overlays/{names(name)}_epoch_{epoch:04d}.png"
            recorder.client.log_image(recorder.cur_run.info.run_id, picture, path)

    # the handlers of MONAI were attached when the engine was made, so their run exists when this is called
    engine.add_event_handler(Events.STARTED, start)
    for handler in handlers:
        if isinstance(handler, ExampleOverlays):
            handler.sinks.append(log_picture)


def _log_parameters(recorder: Any, run: str, parameters: Mapping[str, Any]) -> None:
    logged = recorder.client.get_run(run).data.params
    for name, value in parameters.items():
        text = str(value)[:LONGEST_VALUE]
        if name not in logged:
            recorder.client.log_param(run, name, text)
        elif logged[name] != text:
            recorder.client.set_tag(run, f"changed.{name}", text)


def _exported(path: str | Path, output_dir: str | Path) -> Path:
    path = Path(path)
    # an expression left as text ends with a quote
    return path if path.is_file() else Path(output_dir) / path.name.rstrip("'")
