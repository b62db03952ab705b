"""A process learns from its environment which one it is, and says so in one line where it cannot."""

from __future__ import annotations

import pytest
import torch

from medseg_ext.workflow import join_processes, launched, process_device


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
