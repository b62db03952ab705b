"""The processes of a run that torchrun started, and what they tell each other; one process needs none of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def process_count() -> int:
    """Processes that joined, 1 where none did."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_rank() -> int:
    """The number of this process, from 0; 0 where none joined."""
    return torch.distributed.get_rank() if process_count() > 1 else 0


def is_first_process() -> bool:
    """Whether this is the process that writes what there is one of."""
    return process_rank() == 0


def gather_objects(value: T) -> list[T]:
    """The values of all processes in the order of their ranks, on every process; each has to call.

    Args:
        value: anything that pickles.
    """
    count = process_count()
    if count == 1:
        return [value]
    everybody: list[T] = [value] * count
    torch.distributed.all_gather_object(everybody, value)
    return everybody


def as_first_process(function: Callable[[], T]) -> T:
    """What a function returns on the first process, on every process: what all have to agree on, as a folder's content.

    Args:
        function: called on the first process alone; its result pickles.
    """
    if process_count() == 1:
        return function()
    box: list[T | None] = [function() if is_first_process() else None]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def shard(items: Sequence[T], rank: int, world_size: int) -> list[T]:
    """The items of one process: every ``world_size``-th. Each item is of one process; shares differ by one at the most.

    Args:
        items: the same, in the same order, on every process.
        rank: of the process, from 0.
        world_size: number of processes.
    """
    return list(items[rank::world_size])


def shard_or_all(items: Sequence[T], rank: int, world_size: int) -> list[T]:
    """As :func:`shard`, but all items for each process where there are fewer than processes, so that none is idle.

    MONAI's engines skip a run without data, and its metrics then wait for ever. A mean over what every process has
    once is the mean over what there is.
    """
    return shard(items, rank, world_size) if len(items) >= world_size else list(items)


def lost_process(error: BaseException | None) -> str | None:
    """What a collective operation says when another process is gone or did not answer in time; None for other errors.

    Args:
        error: as it was caught; what it was raised from counts too, as MONAI's metrics wrap it.
    """
    seen: set[int] = set()
    kinds = tuple(
        kind for name in ("DistBackendError", "DistNetworkError", "DistStoreError")
        if (kind := getattr(torch.distributed, name, None)) is not None
    )  # fmt: skip
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = " ".join(str(error).split())
        if isinstance(error, kinds) or (isinstance(error, RuntimeError) and _of_collectives(text)):
            return _reason(text)
        error = error.__cause__ or error.__context__
    return None


def _of_collectives(text: str) -> bool:
    # gloo raises plain RuntimeErrors, which begin with the place in its source
    return "/gloo/" in text or "ProcessGroup" in text or "NCCL error" in text


def _reason(text: str) -> str:
    """An operation's error without its place in the source and without the lines about where to read more."""
    said = text.split("] ", 1)[1] if text.startswith("[") and "] " in text else text
    return said.split(". ")[0][:120] or "no reason given"
