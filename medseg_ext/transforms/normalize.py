"""Intensity normalisation of a head MRI, a patient and a sequence at a time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from medseg_ext.layouts.air import without_fill


def sample(values: np.ndarray, most: int = 400_000) -> np.ndarray:
    """At most about ``most`` of the values, evenly taken: enough for a percentile, at a fraction of the time.

    The step has no factor in common with the last axis, so that every slice and every phase of a row is met.
    """
    step = max(1, values.size // most)
    while math.gcd(step, values.shape[-1]) > 1:
        step += 1
    return values.reshape(-1)[::step]


def head_threshold(channel: np.ndarray, fraction: float = 0.3) -> float:
    """Intensity that parts the head from the air around it.

    It is a fraction of the mean intensity of what is brighter than the volume's mean. Unlike a share of the maximum it
    does not move with a few saturated voxels, and unlike Otsu's it stays below dark tissue whether the air is noisy or
    was zeroed.

    Args:
        channel: any shape, one sequence of one patient, intensities of any unit.
        fraction: share of the bright mean.
    """
    values = sample(channel[np.isfinite(channel)]).astype(np.float64, copy=False)
    lowest = float(values.min())
    bright = values[values > values.mean()]
    if bright.size == 0:  # a constant volume
        return lowest
    return lowest + fraction * (float(bright.mean()) - lowest)


class NormalizeHead(Transform):
    """Z-score each sequence of a patient by the median and the spread of its head.

    Per channel over the whole volume: what is darker than :func:`head_threshold` is air and is set to that threshold,
    so that zeroed and noisy air give the same; the rest is shifted by its median and divided by the distance of its
    10th and 90th percentiles; the result is clipped. A fill far below the air, such as -1024 where nothing was
    measured, counts as air. Multiplying a sequence by any positive constant therefore changes nothing, nor does its
    storage in 8 or 16 bits up to rounding.

    Args:
        fraction: see :func:`head_threshold`.
        clip: highest absolute value of the result.

    Shapes: (C, *spatial) to (C, *spatial) float32. The smallest value of a channel is that of its air.
    """

    def __init__(self, fraction: float = 0.3, clip: float = 4.0) -> None:
        self.fraction = fraction
        self.clip = clip

    def __call__(self, image: Any) -> Any:
        """Normalise (C, *spatial); tensors, MetaTensors and arrays come back as what they were."""
        array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        result = np.empty(array.shape, np.float32)
        for stored, out in zip(array, result, strict=True):
            channel = without_fill(stored)
            threshold = head_threshold(channel, self.fraction)
            head = sample(channel)
            head = head[head > threshold]
            if head.size == 0:
                out.fill(0.0)
                continue
            low, middle, high = np.percentile(head, (10, 50, 90))
            spread = max(float(high - low), 1e-6 * max(abs(float(high)), 1e-30))
            np.maximum(channel, threshold, out=out, casting="unsafe")
            out -= middle
            out /= spread
            np.clip(out, -self.clip, self.clip, out=out)
        return convert_to_dst_type(result, dst=image, dtype=np.float32)[0]


class NormalizeHeadd(MapTransform):
    """Dictionary version of :class:`NormalizeHead`."""

    def __init__(
        self, keys: KeysCollection, fraction: float = 0.3, clip: float = 4.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize = NormalizeHead(fraction, clip)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise every key."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.normalize(result[key])
        return result


def head_box(
    image: torch.Tensor, axes: Sequence[int], share: float = 0.002, air: torch.Tensor | None = None
) -> tuple[slice, ...]:
    """Box of the head along some axes of a normalised image.

    Args:
        image: (C, *spatial), air at each channel's smallest value.
        axes: spatial axes (0 is the first after the channel) to find bounds along.
        share: a row belongs to the head when at least this share of its voxels, in any channel, is not air: single
            noisy voxels in the air do not widen the box.
        air: (C,) value of the air of each channel, by default its smallest one here: give it where ``image`` is a part
            of a volume that may hold no air.

    Returns:
        a slice for each of ``axes``; the full extent where nothing stands out.
    """
    spatial = image.shape[1:]
    floor = (image.flatten(1).amin(1) if air is None else air).view(-1, *(1 for _ in spatial))
    head = (image > floor).any(0)
    box = []
    for axis in axes:
        others = [a for a in range(len(spatial)) if a != axis]
        filled = head.float().mean(dim=others) > share
        where = torch.nonzero(filled).flatten()
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, spatial[axis]))
    return tuple(box)
