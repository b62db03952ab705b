"""Shares of items, and which errors mean that another process is lost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_ext.processes import (
    as_first_process,
    gather_objects,
    is_first_process,
    lost_process,
    process_count,
    shard,
    shard_or_all,
)


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_shares_hold_each_item_once(items: list[int], world_size: int) -> None:
    shares = [shard(items, rank, world_size) for rank in range(world_size)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shares_by_hand() -> None:
    assert [shard("abcde", rank, 2) for rank in range(2)] == [["a", "c", "e"], ["b", "d"]]
    assert [shard("a", rank, 2) for rank in range(2)] == [["a"], []]
    assert [shard_or_all("a", rank, 2) for rank in range(2)] == [["a"], ["a"]]
    assert [shard_or_all("ab", rank, 2) for rank in range(2)] == [["a"], ["b"]]


def test_one_process_talks_to_itself() -> None:
    assert (process_count(), is_first_process()) == (1, True)
    assert gather_objects("a") == ["a"]
    assert as_first_process(lambda: "b") == "b"


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4321"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(GLOO), "Connection closed by peer [127.0.0.1]:4321"),
        (torch.distributed.DistStoreError("wait timeout after 1ms"), "wait timeout after 1ms"),
        (torch.distributed.DistBackendError("NCCL error in: x.cpp:1. Last error: y"), "NCCL error in: x.cpp:1"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError(GLOO), None),
        (None, None),
    ],
)
def test_what_means_that_a_process_is_lost(error: BaseException | None, reason: str | None) -> None:
    assert lost_process(error) == reason


def test_what_an_error_was_raised_from_counts() -> None:
    """As MONAI's metrics wrap what their exchange raises."""
    try:
        try:
            raise RuntimeError(GLOO)
        except RuntimeError as error:
            raise TypeError("unable to sync buffer contents") from error
    except TypeError as error:
        assert lost_process(error) == "Connection closed by peer [127.0.0.1]:4321"
