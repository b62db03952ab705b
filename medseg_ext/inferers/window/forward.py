"""One pass of a network over one window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medseg_ext.inferers.autocast import mixed_precision
from medseg_ext.inferers.window.box import Box, cut

Network = Callable[..., torch.Tensor]


def device_of(network: Network, inputs: torch.Tensor) -> torch.device:
    """Where a network's parameters are; where the inputs are if it has none."""
    parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    return inputs.device if parameter is None else parameter.device


@dataclass(frozen=True)
class Forward:
    """How windows go through the network.

    Args:
        network: maps (1, C, *window) to (1, K, *window).
        device: where it does.
        amp: see :class:`~medseg_ext.inferers.AutocastInferer`.
        channels_last: give it channels-last memory.
        mirror_axes: spatial axes to mirror along, in all combinations.
        args: passed on to the network.
        kwargs: passed on to the network.
    """

    network: Network
    device: torch.device
    amp: bool = True
    channels_last: bool = True
    mirror_axes: tuple[int, ...] = ()
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def empty(self, channels: int, size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised window (1, C, *size), in the type in which the network computes.

        Going there from the image at once saves a float32 copy of the window.
        """
        with mixed_precision(self.device, self.amp):
            if torch.is_autocast_enabled(self.device.type):
                dtype = torch.get_autocast_dtype(self.device.type)
        layout = torch.contiguous_format
        if self.channels_last:
            layout = torch.channels_last if len(size) == 2 else torch.channels_last_3d
        return torch.empty((1, channels, *size), dtype=dtype, device=self.device, memory_format=layout)

    def window(self, volume: torch.Tensor, part: Box, air: torch.Tensor) -> torch.Tensor:
        """Copy a part of a volume (C, *spatial) into a window (1, C, *part.size), with air where there is no volume."""
        inside, own = part.within(volume.shape[1:])
        dtype = volume.dtype if volume.is_floating_point() else torch.float32
        window = self.empty(len(volume), part.size, dtype)
        if any(s.stop - s.start < size for s, size in zip(own, part.size, strict=True)):
            window.copy_(air.view(1, -1, *([1] * len(part.size))).expand_as(window))
        cut(window, own).copy_(cut(volume, inside)[None])
        return window

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Logits (K, *window), averaged over the mirrored windows if there are any."""
        logits = self._once(window)
        axes = [axis + 2 for axis in self.mirror_axes]
        flips = [flip for count in range(1, len(axes) + 1) for flip in itertools.combinations(axes, count)]
        if not flips:
            return logits[0]
        total = torch.zeros_like(logits, dtype=torch.float32)
        total += logits
        for flip in flips:
            total += self._once(window.flip(flip)).flip(flip)
        return total[0].div_(len(flips) + 1)

    def _once(self, window: torch.Tensor) -> torch.Tensor:
        with mixed_precision(self.device, self.amp):
            logits = self.network(window, *self.args, **self.kwargs)
        if not isinstance(logits, torch.Tensor):
            raise ValueError(f"network: found a {type(logits).__name__} returned, allowed one tensor")
        if logits.ndim != window.ndim or len(logits) != 1 or logits.shape[2:] != window.shape[2:]:
            raise ValueError(
                f"network: found {tuple(logits.shape)} returned for a window of {tuple(window.shape)}, "
                f"allowed (1, any, {', '.join(map(str, window.shape[2:]))})"
            )
        return logits
