"""One MLflow run for one start of an engine: what it was given, what came of it, and how it ended."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from numpy.typing import NDArray

from medseg_ext.errors import InputError, escaped
from medseg_ext.files import read_json, sha256, write_atomically
from medseg_ext.processes import is_first_process
from medseg_ext.reports.examples import ExampleOverlays
from medseg_ext.reports.overlays import FileNames
from medseg_ext.reports.provenance import git_says, provenance
from medseg_ext.tracking.datasets import summarise_data
from medseg_ext.tracking.store import is_of_store, quick_requests, shown, store_error, store_in_environment
from medseg_ext.workflow.run import INTERRUPTED, TERMINATED, one_line_errors

logger = logging.getLogger(__name__)

#: Where a run's weights lie among its artifacts, as a bundle has them.
MODEL, WEIGHTS, METADATA = "model", "models/model.pt", "configs/metadata.json"
#: Tag of a run and of a model version with the checksum of those weights.
CHECKSUM = "checkpoint.sha256"
LONGEST_PARAMETER = 500  # characters that every MLflow store takes
_LONGEST_TAG = 5000
_SPLITS = {"training": "train", "validation": "val"}


class TrackedRun:
    """Complete the run that ``--tracking mlflow`` records; do nothing where MONAI put no MLflow handler in.

    A context around the engine's run, for :func:`~medseg_ext.workflow.run_engine`. MONAI's handlers log curves, but of
    a run they would take the latest unfinished one of the same name and append to it. Here each start makes a run of
    its own: ``FINISHED`` when the engine ends well, ``KILLED`` by an interrupt or SIGTERM, else ``FAILED``, with the
    reason in the tag ``error``. Its id is noted in ``<output_dir>/mlflow_run.json``, so that the next start into the
    same folder names it in its tag ``earlier_run``, and marks it failed where a process that was killed could not.

    At the start the executed config, files, parameters, provenance, data sets and patients are logged, so that a run
    that crashes has them too; example overlays as they are drawn; results, means and the checkpoint when it ends.

    With ``--output_dir OUT`` MONAI 1.6 hands its handler ``OUT + '/config_....json'`` as a path, the text of an
    expression that nobody evaluates, and logs no config. Here the file is found in ``output_dir``.

    Args:
        engine: trainer or evaluator, run inside.
        handlers: those of the engine and of its validation.
        output_dir: of the run, where MONAI exports the executed config to.
        dataset_dir: folder of the data sets.
        datasets: items for :func:`~medseg_ext.tracking.datasets.summarise_data` by what is done with them:
            ``training``, ``validation``, ``evaluation`` or ``inference``.
        split: name in the split file of data that are neither trained nor validated on.
        parameters: by name, logged as text.
        metadata: the bundle's, which goes with the weights; its ``name`` and ``version`` are logged.
        files: what the run was given, logged at the start, or at the end when it is not there by then.
        results: files and folders that it makes, logged at the end; the means of a report's JSON become metrics
            ``MEASURE`` below ``results/``. What an earlier run left there is left out.
        weights: file whose checksum goes into the provenance.
        checkpoints: the first that there is in the end is logged as ``model/models/model.pt``, with the metadata beside
            it in ``model/configs``.
        register_model: name under which the registry gets that as a new version; empty for none. The version's source
            is the run's artifact: a state dict, which is read without unpickling objects and fits the bundle's network
            alone, where MLflow's own PyTorch flavour pickles the network.

    Raises:
        SystemExit: a name to register and nothing that tracks, after one line.
        InputError: while running, when the store does not answer.
    """

    FILE = "mlflow_run.json"

    @one_line_errors
    def __init__(
        self,
        engine: Engine,
        handlers: Iterable[Any],
        output_dir: str | Path,
        *,
        dataset_dir: str | Path = ".",
        datasets: Mapping[str, Iterable[Any]] | None = None,
        split: str = "",
        parameters: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        files: Iterable[str | Path] = (),
        results: Iterable[str | Path] = (),
        weights: str | Path | None = None,
        checkpoints: Iterable[str | Path] = (),
        register_model: str = "",
    ) -> None:
        handlers = list(handlers)
        self.recorders: list[Any] = [handler for handler in handlers if isinstance(handler, MLFlowHandler)]
        if register_model and not self.recorders and is_first_process():
            raise InputError("register_model", repr(register_model), "a name together with --tracking mlflow")
        self.output_dir, self.dataset_dir = Path(output_dir), Path(dataset_dir)
        self.datasets, self.split = dict(datasets or {}), split
        self.parameters, self.metadata = dict(parameters or {}), dict(metadata or {})
        self.files, self.results, self.checkpoints = _paths(files), _paths(results), _paths(checkpoints)
        self.weights, self.register_model = weights, register_model
        self.run_id = ""
        self._began = 0.0
        self._surroundings = ExitStack()
        if not self.recorders:
            return
        self._configs = _paths(path for handler in self.recorders for path in handler.artifacts)
        for handler in self.recorders:
            handler.artifacts = ()
        # a run is closed here, after everything else that the engine's end brings
        if engine.has_event_handler(self._recorder.close, Events.COMPLETED):
            engine.remove_event_handler(self._recorder.close, Events.COMPLETED)
        engine.add_event_handler(Events.STARTED, self._note_epoch)
        names = FileNames()

        def log_picture(name: str, picture: NDArray[np.uint8], epoch: int) -> None:
            if self.run_id:
                self.client.log_image(self.run_id, picture, f"overlays/{names(name)}_epoch_{epoch:04d}.png")

        for handler in handlers:
            if isinstance(handler, ExampleOverlays):
                handler.sinks.append(log_picture)

    @property
    def _recorder(self) -> Any:
        return self.recorders[0]

    @property
    def client(self) -> Any:
        """MLflow's client of the store."""
        return self._recorder.client

    def __enter__(self) -> TrackedRun:
        """Make the run.

        Raises:
            InputError: the store does not answer.
        """
        if not self.recorders:
            return self
        self._began = time.time()
        try:
            self._surroundings.enter_context(_raising_on_sigterm())
            self._surroundings.enter_context(store_in_environment(self.client.tracking_uri))
            with quick_requests():
                self._create()
            self._log_start()
        except BaseException as error:
            self._end(error)
            self._raise_as_store_error(error)
            raise
        logger.info("MLflow run %s in %s", self.run_id, shown(self.client.tracking_uri))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log what came of it and end the run.

        Raises:
            InputError: the store does not answer, or it was what failed inside.
        """
        if not self.run_id:
            return
        try:
            if error is None:
                self._log_end()
                self._end(None)
                return
        except BaseException as late:
            self._end(late)
            self._raise_as_store_error(late)
            raise
        self._end(error)
        self._raise_as_store_error(error)

    def _create(self) -> None:
        experiment = self._experiment()
        tags = {f"provenance.{name}": value for name, value in self._provenance().items()}
        revision = git_says(Path(__file__).parent, "rev-parse", "HEAD")
        if revision:
            tags["mlflow.source.git.commit"] = revision
        if earlier := self._earlier_run():
            tags["earlier_run"] = earlier
        run = self.client.create_run(
            experiment.experiment_id,
            run_name=self._recorder.run_name,
            tags={name: value[:_LONGEST_TAG] for name, value in tags.items()},
        )
        self.run_id = run.info.run_id
        for recorder in self.recorders:  # with a run, they look for none
            recorder.experiment, recorder.cur_run = experiment, run
        write_atomically(self.output_dir / self.FILE, json.dumps({"run_id": self.run_id}) + "\n")

    def _experiment(self) -> Any:
        from mlflow.exceptions import MlflowException

        name = self._recorder.experiment_name
        found = self.client.get_experiment_by_name(name)
        if found is None:
            with suppress(MlflowException):  # another run may have made it meanwhile
                self.client.create_experiment(name, artifact_location=self._recorder.artifact_location)
            found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise InputError("experiment_name", f"{name!r}, which is deleted or cannot be made", "another name")
        return found

    def _provenance(self) -> dict[str, str]:
        bundle = " ".join(str(self.metadata[name]) for name in ("name", "version") if name in self.metadata)
        return provenance(self.weights, bundle=bundle or None)

    def _earlier_run(self) -> str | None:
        """The run that the folder's last start made, marked failed where it could not do that itself."""
        from mlflow.exceptions import MlflowException

        path = self.output_dir / self.FILE
        if not path.exists():
            return None
        content = read_json(path, "what an earlier start of this run wrote")
        run_id = content.get("run_id") if isinstance(content, dict) else None
        if not isinstance(run_id, str):
            return None
        with suppress(MlflowException):  # it was recorded elsewhere
            run = self.client.get_run(run_id)
            if run.info.status == "RUNNING":
                self.client.set_tag(run_id, "error", "its process ended without a word")
                self.client.set_terminated(run_id, "FAILED")
        return run_id

    def _log_start(self) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in self.parameters.items()]
        self.client.log_batch(self.run_id, params=parameters)
        summaries = {
            context: summarise_data(items, self.dataset_dir)
            for context, items in ((context, list(items)) for context, items in self.datasets.items())
            if items
        }
        if summaries:
            inputs = [data.as_input(context, _SPLITS.get(context, self.split)) for context, data in summaries.items()]
            self.client.log_inputs(self.run_id, inputs)
            patients = {context: list(data.patients) for context, data in summaries.items()}
            self.client.log_dict(self.run_id, patients, "patients.json")
        configs = [_exported(path, self.output_dir) for path in self._configs]
        for path in [*configs, *self.files]:
            if path.is_file():
                self.client.log_artifact(self.run_id, str(path))
        self.files = [path for path in self.files if not path.is_file()]

    def _note_epoch(self, engine: Engine) -> None:
        """Called after the training's state was loaded."""
        if self.run_id and engine.state.epoch > 0:
            self.client.set_tag(self.run_id, "resumed_after_epoch", engine.state.epoch)

    def _log_end(self) -> None:
        for path in self.files:
            if path.is_file():
                self.client.log_artifact(self.run_id, str(path))
        for root in self.results:
            for path in _written_since(root, self._began):
                folder = path.parent.relative_to(root.parent).as_posix()
                self.client.log_artifact(self.run_id, str(path), None if folder == "." else folder)
                if path.parent == root.parent and path.suffix == ".json":
                    self._log_means(path)
        checkpoint = next((path for path in self.checkpoints if path.is_file()), None)
        if checkpoint is not None:
            self._log_checkpoint(checkpoint)

    def _log_means(self, path: Path) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        means = _means(read_json(path, "a report"))
        self.client.log_batch(self.run_id, metrics=[Metric(f"results/{name}", value, now, 0) for name, value in means])

    def _log_checkpoint(self, checkpoint: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = write_atomically(Path(folder) / WEIGHTS, checkpoint.read_bytes())
            write_atomically(Path(folder) / METADATA, json.dumps(self.metadata, indent=2, default=str) + "\n")
            checksum = sha256(copy)
            self.client.log_artifacts(self.run_id, folder, MODEL)
        self.client.set_tag(self.run_id, "checkpoint.file", checkpoint.name)
        self.client.set_tag(self.run_id, CHECKSUM, checksum)
        if self.register_model:
            self._register(self.register_model, checksum)

    def _register(self, name: str, checksum: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # there already; what else is wrong the next call meets too
            self.client.create_registered_model(name)
        run = self.client.get_run(self.run_id)
        known = ((tag, run.data.tags.get(f"provenance.{tag}")) for tag in ("bundle", "revision"))
        tags = {tag: value for tag, value in known if value} | {CHECKSUM: checksum}
        # a state dict needs no time to be made ready
        version = self.client.create_model_version(
            name, f"{run.info.artifact_uri}/{MODEL}", self.run_id, tags=tags, await_creation_for=0
        )
        logger.info("registered models:/%s/%s", name, version.version)

    def _end(self, error: BaseException | None) -> None:
        if self.run_id:
            for other in self.recorders[1:]:
                other.cur_run = None
            self._recorder.run_finish_status = _status(error)
            if error is None:
                self._recorder.close()
            else:
                with suppress(Exception), quick_requests():  # what went wrong counts, also where it is the store
                    self.client.set_tag(self.run_id, "error", _describe(error))
                    self._recorder.close()
        self.run_id = ""
        self._surroundings.close()

    def _raise_as_store_error(self, error: BaseException) -> None:
        if is_of_store(error):
            raise store_error(self.client.tracking_uri, error) from error


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    stopped = isinstance(error, SystemExit) and error.code in {INTERRUPTED, TERMINATED}
    return "KILLED" if stopped or isinstance(error, KeyboardInterrupt) else "FAILED"


def _describe(error: BaseException) -> str:
    text = escaped(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:LONGEST_PARAMETER]


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, unless somebody else listens."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _paths(paths: Iterable[str | Path | None]) -> list[Path]:
    return [Path(path) for path in paths if path]


def _written_since(root: Path, when: float) -> Iterator[Path]:
    """Files at or below a path that are not older; some file systems keep whole seconds only."""
    for path in [root] if root.is_file() else sorted(root.rglob("*")):
        if path.is_file() and path.stat().st_mtime >= int(when):
            yield path


def _means(content: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Means of the estimates in a report's JSON, ``dice`` or ``dice_tc``; undefined ones are left out."""
    if not isinstance(content, Mapping):
        return
    if {"mean", "ci95"} <= content.keys():
        if isinstance(content["mean"], (int, float)):
            yield prefix, float(content["mean"])
        return
    for name, inner in content.items():
        yield from _means(inner, f"{prefix}_{name}" if prefix else name)


def _exported(path: Path, output_dir: Path) -> Path:
    # an expression left as text ends with a quote
    return path if path.is_file() else output_dir / path.name.rstrip("'")
