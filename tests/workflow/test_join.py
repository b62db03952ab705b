"""A process learns from its environment which one it is, and says so in one line where it cannot."""

from __future__ import annotations

import signal
import sys

import pytest
import torch

from medseg_ext.workflow import join, join_processes, launched, process_device


def test_the_number_that_torchrun_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert launched("RANK") == 3


@pytest.mark.parametrize("value", ["", "two", "-1"])
def test_no_start_by_torchrun(value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", value)
    with pytest.raises(SystemExit) as end:
        launched("RANK")
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RANK: found ") and line.endswith(", allowed a start by torchrun")


def test_a_gpu_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert process_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SystemExit):
        process_device()
    (line,) = capsys.readouterr().err.splitlines()
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(SystemExit):
        process_device()
    assert "LOCAL_RANK: found no such variable in the environment, allowed a start" in capsys.readouterr().err
    assert line == "error: --nproc_per_node: found more processes on this node than its 2 GPUs, allowed 2 at the most"


def test_others_that_do_not_come(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("medseg_ext.workflow.join._end_in_one_line", lambda before: None)
    with pytest.raises(SystemExit) as end:
        join_processes(torch.device("cpu"), timeout=0.02)
    assert end.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: torchrun: found no meeting of the processes (")


def test_a_lost_process_is_one_line_and_other_errors_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the bar of another process stands in the line of the log."""
    ended: list[int] = []
    passed_on: list[type[BaseException]] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    try:
        join._end_in_one_line(lambda kind, error, trace: passed_on.append(kind))
        stop = signal.getsignal(signal.SIGTERM)
        sys.excepthook(ZeroDivisionError, ZeroDivisionError(), None)
        assert (passed_on, ended) == ([ZeroDivisionError], [])
        gone = RuntimeError("[/x/third_party/gloo/y.cc:5] Connection closed by peer [10.0.0.1]:5. More to read: z")
        sys.excepthook(RuntimeError, gone, None)
        assert (passed_on, ended) == ([ZeroDivisionError], [1])
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "torchrun's request adds no second line"
        with pytest.raises(SystemExit) as end:
            stop(signal.SIGTERM, None)  # type: ignore[operator, misc]
        assert end.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.split("\n") == [
        "",
        "error: process 1 of 4: found another one gone, or not there in time (Connection closed by peer [10.0.0.1]:5),"
        " allowed all processes to the end; the same command goes on from what is done",
        "",
        "error: process 1 of 4: found a request to stop (SIGTERM: another one failed, or the job was cancelled),"
        " allowed all processes to the end; the same command goes on from what is done",
        "",
    ]
