"""How much memory a network's windows take, and how much there is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 1024**3
FREE_SHARE = {"cpu": 0.5, "cuda": 0.9}
"""Share of the free memory that windows take by default: a host has other programs to serve, and kills what takes too
much instead of refusing it."""
LEAST_SHARE = 0.25
"""Share of a budget that windows get whatever the result takes, which has to be held in any case: windows of what is
left would take hours, and see nothing around them."""
_CGROUP_FILES = (  # limit, use and statistics of a container, in the second and in the first version
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had: of a GPU, or of the host as far as the container lets this process use it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = int(psutil.virtual_memory().available)
    return min([available, *_container_memory(Path("/sys/fs/cgroup"))])


def default_budget(device: torch.device) -> float:
    """Bytes that windows take when nobody says how many."""
    return free_memory(device) * FREE_SHARE.get(device.type, FREE_SHARE["cpu"])


def release_cached(device: torch.device) -> None:
    """Give back what no tensor uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _container_memory(root: Path) -> list[int]:
    """Bytes left under each limit of a container; what only caches files counts as free."""
    left = []
    for names in _CGROUP_FILES:
        try:
            limit, used, statistics = ((root / name).read_text() for name in names)
            cached = dict(line.split()[:2] for line in statistics.splitlines()).get("inactive_file", "0")
            left.append(max(0, int(limit) - int(used) + int(cached)))
        except (OSError, ValueError):  # no such file, or no limit ("max")
            continue
    return left


@dataclass(frozen=True)
class Footprint:
    """What a pass of a network takes, beyond its weights.

    Args:
        bytes_per_voxel: of its window, input and output included.
        fixed: bytes whatever the window's size, as those of weights in another type.
        classes: output channels.
    """

    bytes_per_voxel: float
    fixed: float
    classes: int

    def window(self, voxels: float) -> float:
        """Bytes of a pass over so many voxels."""
        return self.fixed + self.bytes_per_voxel * voxels

    def result(self, voxels: float) -> float:
        """Bytes of a float32 result of so many voxels."""
        return 4.0 * self.classes * voxels

    def most_voxels(self, budget: float, box_voxels: float, volume_voxels: float) -> float:
        """Voxels of the largest window that a budget allows.

        A single window's result is allocated after its pass, when the activations are gone; with several it is there
        from the second on.

        Args:
            budget: bytes.
            box_voxels: what a single window would have.
            volume_voxels: of the result.
        """
        result = self.result(volume_voxels)
        if self.window(box_voxels) <= budget and result + self.result(box_voxels) <= budget:
            return box_voxels
        return (max(budget - result, LEAST_SHARE * budget) - self.fixed) / self.bytes_per_voxel


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that operations make inside a ``with`` block.

    It works on every device and sees through TorchScript. What an operation takes for itself and gives back before it
    ends is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what is new in its result."""
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in given and key not in self._known:
                    self._known.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._forget, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measure_footprint(run: Callable[[tuple[int, ...]], torch.Tensor], window: Sequence[int]) -> Footprint:
    """Measure what a network takes by two passes over small windows.

    Args:
        run: makes a window of the given size, passes it through the network and returns the logits (1, K, *window).
        window: the smaller one; the other is twice as long on the first axis.
    """
    small, large = tuple(window), (2 * window[0], *window[1:])
    peaks = []
    classes = 0
    for size in (small, large):
        with LiveBytes() as live:
            classes = run(size).shape[1]
        peaks.append(live.peak)
    voxels = torch.Size(small).numel()
    slope = max(1.0, (peaks[1] - peaks[0]) / voxels)
    return Footprint(slope, max(0.0, peaks[0] - slope * voxels), classes)
