"""The SLURM script, with stand-ins for SLURM's own programs: which command each node starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_training.sh"


@pytest.mark.skipif(shutil.which("bash") is None, reason="a script for bash")
def test_each_node_starts_torchrun(tmp_path: Path) -> None:
    for name, text in (("scontrol", "printf 'node07\\nnode08\\n'"), ("srun", "printf '%s\\n' \"$@\"")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_ID": "41234", "SLURM_NNODES": "2"}
    slurm |= {"SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32"}
    done = subprocess.run(
        ["bash", str(SCRIPT), "--dataset_dir", "a folder"],
        env=os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python3.11"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *["--kill-on-bad-exit=1", "python3.11", "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=4"],
        *["--rdzv_backend=c10d", "--rdzv_id=41234", "--rdzv_endpoint=node07:21234"],
        *["-m", "monai.bundle", "run", "training"],
        *["--config_file", "['configs/train.json','configs/multi_gpu.yaml']", "--dataset_dir", "a folder"],
    ]
