"""Call a function in several processes that torch.distributed joins, on this machine's CPU."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run_in_processes(count: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``count`` new processes, by rank.

    Args:
        count: processes; they talk by Gloo, and give up after a minute without an answer.
        folder: empty, for files by which they meet and answer.
        function: of a module, not nested.
    """
    torch.multiprocessing.spawn(_join_and_call, (count, str(folder), function, arguments), nprocs=count)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(count)]


def _join_and_call(
    rank: int, count: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=count,
        timeout=datetime.timedelta(minutes=1),
    )
    result = function(*arguments)
    (Path(folder) / f"{rank}.pickle").write_bytes(pickle.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
