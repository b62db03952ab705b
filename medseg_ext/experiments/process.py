"""Run a bundle's verb in a process of its own, once, however often it is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, write_atomically
from medseg_ext.training.state import STATE_FILE
from medseg_ext.workflow.run import INTERRUPTED, TERMINATED

#: Programs of the working tree that these runs call.
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
_DONE = "{verb}.done.json"
_ERROR = "error: "


def run_verb(
    verb: str, bundle: Path, configs: Sequence[Path], values: Mapping[str, Any], folder: Path, tracking: str = ""
) -> bool:
    """Run ``monai.bundle run VERB``, unless it has ended well in that folder before.

    The values are written to ``FOLDER/VERB.yaml``, merged last; what the process prints goes to ``FOLDER/VERB.log``. A
    training that was interrupted goes on where it stopped, as bundles do; one that has ended keeps its weights alone.

    Args:
        verb: id to run, as ``training``.
        bundle: its folder, in which it runs.
        configs: files to merge, in order.
        values: named values of this run, ``output_dir`` among them.
        folder: where these files go.
        tracking: URI of the MLflow store, empty to record nothing.

    Returns:
        Whether it ran.

    Raises:
        InputError: it ended with another status than 0, with the last error that it printed; or the folder holds a run
            of other configs or values.
    """
    stamp = fingerprint(configs, values)
    done, started = folder / _DONE.format(verb=verb), folder / f"{verb}.yaml"
    if started.exists() and (before := _stamp(started)) != stamp:
        raise InputError(started, f"a run of other configs or values ({before[:12]})", "another output folder")
    if done.exists():
        return False
    write_atomically(started, f"# {stamp}\n{yaml.safe_dump(_plain(values), sort_keys=False)}")
    files = str([str(path.resolve()) for path in (*configs, started)])
    command = [sys.executable, "-m", "monai.bundle", "run", verb, "--config_file", files]
    if tracking:
        command += ["--tracking", "mlflow", "--tracking_uri", tracking]
    run_logged(command, folder / f"{verb}.log", bundle)
    write_atomically(done, json.dumps({"stamp": stamp}))
    # what an interrupted training goes on from takes four times the room of its weights; only now is it of no more use
    (Path(values["output_dir"]) / STATE_FILE).unlink(missing_ok=True)
    return True


def run_logged(command: Sequence[str], log: Path, folder: Path) -> None:
    """Run a program and keep what it prints.

    Raises:
        InputError: it ended with another status than 0, with the last error that it printed.
    """
    # the variable would win over the store that is asked for
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status in {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    if status:
        raise InputError(log, f"status {status} ({last_error(log)})", "a run that ends with status 0")


def last_error(log: Path) -> str:
    """The last line with ``error:`` of a program's output, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(_ERROR)]
    return (errors or lines or ["no output"])[-1].removeprefix(_ERROR)[:300]


def fingerprint(configs: Sequence[Path], values: Mapping[str, Any]) -> str:
    """SHA-256 of what makes a run the one it is: the configs' bytes and the values; where data lie does not count."""
    digest = hashlib.sha256()
    for path in configs:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    named = {name: value for name, value in values.items() if name not in {"dataset_dir", "output_dir", "bundle_root"}}
    digest.update(json.dumps(_plain(named), sort_keys=True).encode())
    return digest.hexdigest()


def claim(path: Path, content: Mapping[str, Any]) -> None:
    """Write what an output folder is of, or refuse a folder of something else.

    Raises:
        InputError: the file is there with other content.
    """
    plain = _plain(content)
    if path.exists():
        before = read_json(path, "what an earlier run wrote")
        other = sorted(key for key in {*plain, *before} if plain.get(key) != before.get(key))
        if other:
            raise InputError(path, f"a run with another {', '.join(other)}", "another output folder")
    else:
        write_atomically(path, json.dumps(plain, indent=1) + "\n")


def terminate_with_children() -> None:
    """Let a request to terminate end this process as an interrupt does, which takes the process that runs with it."""

    def stop(*_: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def _stamp(path: Path) -> str:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("# ")


def _plain(value: Any) -> Any:
    """As JSON has it: tuples as lists, paths as text."""
    return json.loads(json.dumps(value, default=str))
