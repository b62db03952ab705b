"""One scale for the sequences of a head, whether its skull was removed or not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type
from scipy import ndimage

from medseg_ext.layouts.air import air_value, is_skull_stripped, without_fill
from medseg_ext.transforms.normalize import head_threshold, sample

#: Highest absolute value after normalisation: of fat and vessels no more is needed.
CLIP = 8.0
_COARSE_MM = 4.0
_NORMAL_P10_P90 = 2.563  # distance of these percentiles in standard deviations of a normal distribution


class HeadScale(NamedTuple):
    """How a head is normalised.

    Attributes:
        head: (H, W, D) bool, anything but air.
        centre: (C,) what becomes 0. spread: (C,) what becomes 1; 0 for a sequence that is missing.
        stripped: whether the skull was taken to be removed.
    """

    head: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    stripped: bool


def find_head(image: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), stripped: bool = False) -> np.ndarray:
    """What of a volume is not air, in any sequence.

    Skull-stripped: whatever has not the one value that the air was set to. Otherwise what is brighter than noise (see
    :func:`~medseg_ext.transforms.head_threshold`) on a coarse grid, of which the largest connected part stays, with its
    holes filled: of air that was zeroed some noise is usually left about the head.

    Args:
        image: (C, H, W, D).
        spacing: voxel size in mm.
        stripped: whether the skull was removed.

    Returns:
        bool (H, W, D).
    """
    if not stripped:
        return _head_in_noise(image, spacing)
    head = np.zeros(image.shape[1:], bool)
    for channel in image:
        if _varies(channel):
            head |= channel != air_value(channel)
    return head


def _varies(channel: np.ndarray) -> bool:
    """Whether a channel has more than one value: a few of them nearly always tell, at no cost."""
    few = channel[tuple(slice(None, None, max(1, n // 16)) for n in channel.shape)]
    return bool(few.min() < few.max()) or bool(channel.min() < channel.max())


def _coarse(volume: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Means over blocks; incomplete blocks at the far ends are filled up with their last voxels."""
    padded = np.pad(volume, [(0, -n % s) for n, s in zip(volume.shape, steps, strict=True)], mode="edge")
    rows, columns, slices = (n // s for n, s in zip(padded.shape, steps, strict=True))
    blocks = padded.reshape(rows, steps[0], columns, steps[1], slices, steps[2])
    return blocks.mean((1, 3, 5), dtype=np.float32)


def _fine(mask: np.ndarray, steps: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    for axis, step in enumerate(steps):
        mask = mask.repeat(step, axis)
    return mask[tuple(slice(n) for n in shape)]


def _steps(spacing: Sequence[float], mm: float = _COARSE_MM) -> list[int]:
    return [max(1, round(mm / size)) for size in spacing]


def _head_in_noise(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    steps = _steps(spacing, 2.0)
    found = np.zeros([-(-n // s) for n, s in zip(image.shape[1:], steps, strict=True)], bool)
    for channel in image:
        if _varies(channel):
            found |= _coarse(channel, steps) > head_threshold(channel)
    parts, count = ndimage.label(ndimage.binary_opening(found) if min(found.shape) > 2 else found)
    if count:
        found = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    for axis in range(3):  # nostrils and ears open to the air in some planes only
        planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(found, axis, 0)]
        found = np.moveaxis(np.stack(planes), 0, axis)
    return _fine(found, steps, image.shape[1:])


def inner_head(head: np.ndarray, spacing: Sequence[float], depth: float = 20.0) -> np.ndarray:
    """What of a head lies at least ``depth`` mm under its surface: mostly brain.

    Args:
        head: bool (H, W, D). Where it is cut by the border of the volume it is taken to go on.
        spacing: voxel size in mm.
        depth: mm; less is taken where nothing lies so deep.

    Returns:
        bool (H, W, D), in steps of 4 mm.
    """
    steps = _steps(spacing)
    coarse = _coarse(head, steps) > 0.5
    if coarse.all():
        return head
    distance = ndimage.distance_transform_edt(coarse, [n * s for n, s in zip(steps, spacing, strict=True)])
    inner = distance > min(depth, 0.7 * float(distance.max()))
    return _fine(inner, steps, head.shape) & head


class ZScoreHead(Transform):
    """Shift and scale each sequence so that the brain has mean 0 and standard deviation 1; air becomes exactly 0.

    Skull-stripped: mean and standard deviation of all that is not air, as is usual with BraTS. With the skull: what
    lies deep in the head stands for the brain, by its median and the distance of its 10th and 90th percentiles, which
    fat, eyes and sinuses hardly move. So the brain has nearly the same values either way, and multiplying a sequence by
    a positive constant or adding one to it changes nothing.

    Args:
        stripped: whether skulls were removed; None tells by the size of the head.
        clip: highest absolute value of the result.
        depth: mm under the surface of a head with its skull from where on it counts as brain.
        spread: factor on the spread of what lies deep in the head, which is wider than that of the brain alone.

    Shapes: (C, H, W, D) to (C, H, W, D) float32. A sequence that is constant (missing) becomes 0.
    """

    def __init__(
        self, stripped: bool | None = None, clip: float = CLIP, depth: float = 20.0, spread: float = 0.9
    ) -> None:
        self.stripped = stripped
        self.clip = clip
        self.depth = depth
        self.spread = spread

    def scale_of(
        self, image: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), stripped: bool | None = None
    ) -> HeadScale:
        """How a volume is normalised.

        Args:
            image: (C, H, W, D), intensities of any unit.
            spacing: voxel size in mm.
            stripped: whether its skull was removed, where that is known.
        """
        return self._scale_of(without_fill(image, 0), spacing, stripped)

    def _scale_of(self, image: np.ndarray, spacing: Sequence[float], stripped: bool | None) -> HeadScale:
        stripped = self.stripped if stripped is None else stripped
        if stripped is None:
            rows, columns, slices = spacing
            seen = next((channel for channel in image if _varies(channel)), image[0])
            stripped = is_skull_stripped(seen, (rows, columns, slices), air_value(seen))
        head = find_head(image, spacing, stripped)
        inside = head if stripped else inner_head(head, spacing, self.depth)
        centre, spread = np.zeros(len(image)), np.zeros(len(image))
        for index, channel in enumerate(image):
            values = channel[inside].astype(np.float32, copy=False)
            if not values.size or not _varies(channel):
                continue
            if stripped:
                centre[index], spread[index] = values.mean(dtype=np.float64), values.std(dtype=np.float64)
            else:
                low, middle, high = np.percentile(sample(values), (10, 50, 90))
                centre[index], spread[index] = middle, self.spread * (high - low) / _NORMAL_P10_P90
        return HeadScale(head, centre, spread, bool(stripped))

    def __call__(self, image: Any, spacing: Sequence[float] = (1.0, 1.0, 1.0), stripped: bool | None = None) -> Any:
        """Normalise (C, H, W, D), see :meth:`scale_of`; tensors, MetaTensors and arrays come back as what they were."""
        array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        array = without_fill(array, 0)
        head, centre, spread, _ = self._scale_of(array, spacing, stripped)
        result = np.zeros(array.shape, np.float32)
        for channel, out, middle, unit in zip(array, result, centre, spread, strict=True):
            if unit <= 1e-6 * abs(middle):
                continue
            out[head] = np.clip((channel[head] - np.float32(middle)) / np.float32(unit), -self.clip, self.clip)
        return convert_to_dst_type(result, dst=image, dtype=np.float32)[0]


class ZScoreHeadd(MapTransform):
    """Dictionary version of :class:`ZScoreHead`.

    Args:
        keys: volumes (C, H, W, D).
        spacing_key: voxel size in mm, 1 mm where there is no such key.
        stripped, clip, depth, spread: see :class:`ZScoreHead`. Where ``stripped`` is None, ``skull_stripped`` in the
            volume's ``meta`` counts, which :class:`~medseg_ext.transforms.LoadSequencesd` writes there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        stripped: bool | None = None,
        clip: float = CLIP,
        depth: float = 20.0,
        spread: float = 0.9,
        spacing_key: str = "spacing",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize = ZScoreHead(stripped, clip, depth, spread)
        self.spacing_key = spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise every key."""
        result = dict(data)
        spacing = tuple(float(size) for size in result.get(self.spacing_key, (1.0, 1.0, 1.0)))
        for key in self.key_iterator(result):
            told = result[key].meta.get("skull_stripped") if isinstance(result[key], MetaTensor) else None
            stripped = self.normalize.stripped if told is None or self.normalize.stripped is not None else bool(told)
            result[key] = self.normalize(result[key], spacing, stripped)
        return result
