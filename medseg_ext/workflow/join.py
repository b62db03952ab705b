"""Start the processes of a run that torchrun launched, and end them in one line when one of them is lost."""

from __future__ import annotations

import atexit
import datetime
import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch

from medseg_ext.errors import InputError, print_error, wants_traceback
from medseg_ext.processes import lost_process
from medseg_ext.workflow.run import TERMINATED, one_line_errors

_ALLOWED = "all processes to the end; the same command goes on from what is done"


@one_line_errors
def launched(name: str) -> int:
    """A number that torchrun gave this process: ``RANK``, ``WORLD_SIZE`` or ``LOCAL_RANK``.

    Raises:
        SystemExit: after one line, where there is none.
    """
    value = os.environ.get(name, "")
    if not value.isdigit():
        found = f"{value!r} in the environment" if value else "no such variable in the environment"
        raise InputError(name, found, "a start by torchrun")
    return int(value)


@one_line_errors
def process_device() -> torch.device:
    """The GPU of this process, by its number on the node; the CPU where there is no GPU at all.

    Raises:
        SystemExit: after one line, with more processes on this node than GPUs, or without torchrun.
    """
    number, count = launched("LOCAL_RANK"), torch.cuda.device_count()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if number >= count:
        raise InputError(
            "--nproc_per_node", f"more processes on this node than its {count} GPUs", f"{count} at the most"
        )
    return torch.device("cuda", number)


@one_line_errors
def join_processes(device: torch.device, timeout: float) -> None:
    """Meet the other processes; afterwards a lost one ends this one too, with one line and no waiting for ever.

    Called again, it does nothing.

    Args:
        device: of this process; GPUs talk by NCCL, CPUs by Gloo.
        timeout: minutes that an operation of all processes may take, so also those that one may lag behind.

    Raises:
        SystemExit: after one line, where the others do not come.
    """
    if torch.distributed.is_initialized():
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    before = sys.excepthook
    try:
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", timeout=datetime.timedelta(minutes=timeout), device_id=device if cuda else None
        )
    except (RuntimeError, ValueError) as error:
        sys.excepthook = before
        found = f"no meeting of the processes ({' '.join(str(error).split())[:200]})"
        raise InputError("torchrun", found, "MASTER_ADDR and MASTER_PORT that every node reaches") from error
    # not on top of the hook that torch has put in by now, which loses what is printed by one that ends the process
    _end_in_one_line(before)
    # when the interpreter ends, its last collection of a DistributedDataParallel may wait for ever for Gloo's threads
    atexit.register(gc.freeze)


def leave_processes() -> None:
    """End this process with status 0, as the last step of a run that joined others; without others do nothing.

    What Gloo's threads still hold when the interpreter takes its objects apart makes the end wait for ever, or abort a
    training that is done. So all that is to be done at the end is done here, and the interpreter is left as it is.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()  # what MLflow and logging have to write
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_in_one_line(before: Callable[..., Any]) -> None:
    """One line, and status 1 or 143, for the two ways in which a process learns that another one is lost.

    The operation that both take part in fails; or torchrun, which watches the processes of its node, asks to stop.

    Args:
        before: the hook for all other exceptions.
    """
    name = f"process {launched('RANK')} of {launched('WORLD_SIZE')}"

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        reason = lost_process(error)
        if reason is None or wants_traceback():
            before(kind, error, trace)
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what else there is to say has been said
        _print(name, f"another one gone, or not there in time ({reason})")
        sys.stdout.flush()
        os._exit(1)  # to leave by the door would wait for the one that is gone

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _print(name, "a request to stop (SIGTERM: another one failed, or the job was cancelled)")
        raise SystemExit(TERMINATED)

    sys.excepthook = hook
    signal.signal(signal.SIGTERM, stop)


def _print(name: str, found: str) -> None:
    if not sys.stderr.isatty():
        print(file=sys.stderr)  # the bar of another process may stand in this line of the log
    print_error(InputError(name, found, _ALLOWED))
