"""Sliding-window inference on the box of the head, in as few windows as memory allows."""

from __future__ import annotations

import logging
import math
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from tqdm import tqdm

from medseg_ext.errors import InputError, is_out_of_memory
from medseg_ext.inferers.openvino import OpenVINONetwork
from medseg_ext.inferers.window.blend import Blend, Result
from medseg_ext.inferers.window.box import Box, air_values, grown, head_bounds, head_mask
from medseg_ext.inferers.window.budget import MemoryBudget
from medseg_ext.inferers.window.forward import Forward, Network, device_of
from medseg_ext.inferers.window.memory import release_cached
from medseg_ext.inferers.window.tiling import Tiling, halved, largest_window, round_up, tile

logger = logging.getLogger(__name__)

OUTSIDE_LOGIT = -20.0  # sigmoid of it is 2e-9: certainly background
_PROBE = 32  # voxels an axis, at least, of the windows that memory is measured with
_BAR_DELAY = 2.0  # seconds of work before a bar is shown


@dataclass(frozen=True)
class _Volume:
    """One volume of the batch.

    Args:
        number: which of the batch.
        image: (C, *spatial).
        air: (C,) value of the air.
        mask: bool (*spatial), the head; None where nothing depends on it.
    """

    number: int
    image: torch.Tensor
    air: torch.Tensor
    mask: torch.Tensor | None

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(self.image.shape[1:])


class BoxWindowInferer(Inferer):
    """Segment volumes in windows over the box of the head, or in one pass where that fits into memory.

    It stands in for MONAI's ``SlidingWindowInferer``, which goes over the air around the head too, pads up to its
    window, keeps a second array of the result's size and leaves the choice of the window to the user. Windows are
    spread evenly, weighted so that they sum to one, and left out where they hold nothing but air. When memory runs out
    all the same, windows are halved, then the result goes to host memory; both are logged as warnings.

    Args:
        window: voxels of a window, one number for all axes or one each. Where the box is smaller the window shrinks to
            it. None for as few and as large windows as ``memory_budget`` allows: one pass where the whole box fits,
            which is also what suits networks with instance or group normalisation.
        overlap: least share of a window that it has in common with the next, one number or one an axis.
        weights: "gaussian" around a window's middle, or "constant".
        sigma: standard deviation of the gaussian as a share of the window.
        divisor: what the network needs the sizes of its input to be multiples of, one number or one an axis. Windows
            chosen here are multiples of it; a box is padded up to it, and never further.
        fixed_window: pad small boxes up to ``window`` after all, for networks that take no other size.
        crop: work on the box of the head only.
        air: value of the air around the head in every channel of the normalised image, or None for each channel's
            smallest. Where nothing has this value the box is the whole volume: slower, but right.
        share: a plane belongs to the head when more than this share of its voxels is not air; raise it where noise in
            the air was not removed.
        margin: voxels of air kept around the head.
        skip_empty: leave out windows that hold nothing but air. No voxel of the head depends on it.
        outside: logit of voxels outside the box, and of skipped windows.
        memory_budget: GiB that windows and result may take together, beyond what is in use already. None for half of
            the host's free memory (of the container's, where it has a limit) or nine tenths of a GPU's. Windows get a
            quarter of it however large the result is, with a warning where that goes beyond it.
        bytes_per_voxel: what a pass takes a voxel of its window. None to measure it once for each network, by two
            passes over small windows, unless there is plenty of free memory.
        mirror_axes: spatial axes (0 is the first) along which the image is mirrored, in all combinations; the logits
            are averaged. Each axis doubles the time.
        amp: bfloat16 (or float16 on GPUs without it) where the device computes it: half the memory, and not always
            faster on processors without AMX. Sums are float32 always.
        channels_last: give the network channels-last memory.
        device: where windows are computed; None for where the network's parameters are, or else the inputs.
        backend: "torch", or "openvino" for inference on processors (needs the extra ``openvino``).
        progress: show a bar where there are several windows and they take more than two seconds.

    Shapes: inputs (B, C, *spatial), 2-D or 3-D, any B; the network maps (1, C, *window) to (1, K, *window) for any K.
    The result is float32 (B, K, *spatial) on the inputs' device, unless it went to host memory. Further arguments go
    to the network as they are.

    Each volume of a batch is segmented by itself. The same windows give the same logits on any device to 1e-4 of
    their range in float32, and to 2 % of it in mixed precision.
    """

    def __init__(
        self,
        window: Sequence[int] | int | None = None,
        overlap: Sequence[float] | float = 0.25,
        weights: str = "gaussian",
        sigma: float = 0.125,
        divisor: Sequence[int] | int = 16,
        fixed_window: bool = False,
        crop: bool = True,
        air: float | None = 0.0,
        share: float = 0.0,
        margin: int = 0,
        skip_empty: bool = True,
        outside: float = OUTSIDE_LOGIT,
        memory_budget: float | None = None,
        bytes_per_voxel: float | None = None,
        mirror_axes: Sequence[int] = (),
        amp: bool = True,
        channels_last: bool = True,
        device: str | torch.device | None = None,
        backend: str = "torch",
        progress: bool = True,
    ) -> None:
        self.window = window
        self.overlap = overlap
        self.weights = weights
        self.sigma = sigma
        self.divisor = divisor
        self.fixed_window = fixed_window
        self.crop = crop
        self.air = air
        self.share = share
        self.margin = margin
        self.skip_empty = skip_empty
        self.outside = outside
        self.mirror_axes = tuple(mirror_axes)
        self.amp = amp
        self.channels_last = channels_last
        self.device = None if device is None else torch.device(device)
        self.backend = backend
        self.progress = progress
        self._budget = MemoryBudget(memory_budget, bytes_per_voxel)
        self._check_arguments()
        self._openvino: tuple[weakref.ref[Any], OpenVINONetwork] | None = None
        self._most_voxels = math.inf  # of a window, once memory has run out

    def _check_arguments(self) -> None:
        windows = () if self.window is None else _as_tuple(self.window)
        for name, found, good, allowed in (
            ("window", self.window, all(n >= 1 for n in windows), "1 or more on each axis, or None"),
            ("overlap", self.overlap, all(0 <= x < 1 for x in _as_tuple(self.overlap)), "0 or more, less than 1"),
            ("weights", self.weights, self.weights in {"gaussian", "constant"}, "'gaussian' or 'constant'"),
            ("sigma", self.sigma, self.sigma > 0, "more than 0"),
            ("divisor", self.divisor, all(n >= 1 for n in _as_tuple(self.divisor)), "1 or more"),
            ("fixed_window", self.fixed_window, bool(windows) or not self.fixed_window, "False without a window"),
            ("margin", self.margin, self.margin >= 0, "0 or more"),
            (
                "memory_budget",
                self._budget.gib,
                self._budget.gib is None or self._budget.gib > 0,
                "more than 0, or None",
            ),
            ("mirror_axes", self.mirror_axes, set(self.mirror_axes) <= {0, 1, 2}, "any of 0, 1, 2"),
            ("backend", self.backend, self.backend in {"torch", "openvino"}, "'torch' or 'openvino'"),
        ):
            if not good:
                raise ValueError(f"{name}: found {found!r}, allowed {allowed}")

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Segment every volume of the batch.

        Raises:
            ValueError: an argument does not fit the inputs, or what the network returns does not fit the window.
            InputError: out of memory even with the smallest windows.
        """
        if inputs.ndim not in {4, 5} or not len(inputs):
            raise ValueError(
                f"inputs: found shape {tuple(inputs.shape)}, allowed (batch, channel, 2 or 3 spatial axes)"
            )
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        spatial = tuple(images.shape[2:])
        device = self.device or device_of(network, images)
        axes = tuple(axis for axis in self.mirror_axes if axis < len(spatial))
        forward = Forward(network, device, self.amp, self.channels_last, axes, args, kwargs)
        result = Result(len(images), spatial, self.outside, images.device)
        with torch.no_grad():
            for number, image in enumerate(images):
                self._segment(image, number, result, forward)
        assert result.tensor is not None  # a batch has at least one volume
        if isinstance(inputs, MetaTensor):
            return MetaTensor(result.tensor).copy_meta_from(inputs, copy_attr=False)
        return result.tensor

    def _segment(self, image: torch.Tensor, number: int, result: Result, forward: Forward) -> None:
        """Write the logits of one volume, with smaller and smaller windows until they fit into memory."""
        air = air_values(image, self.air)
        mask = head_mask(image, air) if self.crop or self.skip_empty else None
        volume = _Volume(number, image, air, mask)
        bounds = self._bounds(volume)
        while True:
            try:
                box, tiling = self._plan(volume, bounds, result, forward)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise _too_little_memory(forward.device, "to try the network in") from error
            logger.debug("volume %d: %d windows of %s in %s", number, len(tiling), tiling.window, box)
            try:
                self._run(volume, box, tiling, result, self._backend(forward, len(volume.spatial)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._give_way(tiling.window, result, forward.device, error)
            else:
                return
            # only here, where the error is gone, is nothing left that holds the tensors of the failed pass
            release_cached(forward.device)
            if result.tensor is not None:
                result.tensor[number].fill_(self.outside)

    def _bounds(self, volume: _Volume) -> Box:
        whole = Box((0,) * len(volume.spatial), volume.spatial)
        if not self.crop or volume.mask is None:
            return whole
        head = head_bounds(volume.mask, self.share, self.margin)
        if head is None and self.skip_empty:  # air alone: a window of it tells the number of classes
            return Box(whole.start, tuple(map(min, self._least(volume.spatial), volume.spatial)))
        return head or whole

    def _plan(self, volume: _Volume, bounds: Box, result: Result, forward: Forward) -> tuple[Box, Tiling]:
        """Box and windows for one volume."""
        axes = len(volume.spatial)
        divisor, overlap = _each_axis("divisor", self.divisor, axes), _each_axis("overlap", self.overlap, axes)
        padded = tuple(round_up(n, d) for n, d in zip(bounds.size, divisor, strict=True))
        if self.window is None:
            probe = tuple(round_up(_PROBE, 2 * d) for d in divisor)
            most = self._budget.most_voxels(math.prod(padded), len(volume.image), probe, result, forward)
            most = min(most, self._most_voxels)
            window = largest_window(bounds.size, overlap, divisor, self._least(padded), most)
        else:
            window = _each_axis("window", self.window, axes)
            if not self.fixed_window:
                window = tuple(map(min, window, padded))
                window = halved(window, self._least(window), divisor, self._most_voxels)
        size = tuple(map(max, bounds.size, window))
        return grown(bounds, size, volume.spatial), tile(size, window, overlap)

    def _least(self, window: Sequence[int]) -> tuple[int, ...]:
        """The smallest window to fall back on: with less than twice the divisor an axis little context is left."""
        return tuple(
            min(n, 2 * d) for n, d in zip(window, _each_axis("divisor", self.divisor, len(window)), strict=True)
        )

    def _backend(self, forward: Forward, axes: int) -> Forward:
        """The same pass by another library where that was asked for."""
        if self.backend == "torch":
            return forward
        if not isinstance(forward.network, torch.nn.Module):
            raise ValueError(f"network: found {forward.network!r}, allowed a module for OpenVINO to convert")
        if self._openvino is None or self._openvino[0]() is not forward.network:
            trace = tuple(2 * d for d in _each_axis("divisor", self.divisor, axes))
            converted = OpenVINONetwork(forward.network, "auto" if self.amp else "f32", trace)
            self._openvino = (weakref.ref(forward.network), converted)
        return replace(forward, network=self._openvino[1], amp=False, channels_last=False)

    def _run(self, volume: _Volume, box: Box, tiling: Tiling, result: Result, forward: Forward) -> None:
        """Compute the windows of one volume."""
        parts = {index: box.part(tiling.start(index), tiling.window) for index in tiling}
        empty = {index for index, part in parts.items() if self._is_empty(volume, part)}
        computed = [index for index in parts if index not in empty]
        if not computed and result.tensor is None:  # nothing but a window tells the number of classes
            computed = [empty.pop()]
        blend: Blend | None = None
        if result.tensor is not None:
            blend = self._blend(result.tensor[volume.number], box, tiling)
        for index in self._bar(computed):
            logits = forward(forward.window(volume.image, parts[index], volume.air))
            if blend is None:
                blend = self._blend(result.volume(volume.number, len(logits)), box, tiling)
            blend.add(index, logits)
            del logits  # else it stays through the next pass
        assert blend is not None
        for index in empty:
            blend.skip(index)

    def _blend(self, volume: torch.Tensor, box: Box, tiling: Tiling) -> Blend:
        return Blend(volume, box, tiling, self.outside, self.weights, self.sigma)

    def _is_empty(self, volume: _Volume, part: Box) -> bool:
        if not self.skip_empty or volume.mask is None:
            return False
        inside, _ = part.within(volume.spatial)
        return not bool(volume.mask[inside].any())

    def _bar(self, windows: Sequence[tuple[int, ...]]) -> Iterable[tuple[int, ...]]:
        return tqdm(
            windows,
            desc="windows",
            unit="window",
            delay=_BAR_DELAY,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            leave=False,
            disable=not self.progress or len(windows) < 2,
            file=sys.stderr,
        )

    def _give_way(self, window: tuple[int, ...], result: Result, device: torch.device, error: BaseException) -> None:
        """Decide what to do with less memory: smaller windows, then the result in host memory, then give up."""
        shown = " x ".join(map(str, window))
        divisor = _each_axis("divisor", self.divisor, len(window))
        smaller = window if self.fixed_window else halved(window, self._least(window), divisor, math.prod(window) / 2)
        if smaller != window:
            self._most_voxels = math.prod(smaller)
            logger.warning(
                "out of memory on %s with a window of %s: trying windows of %d voxels at most, here and from now on",
                device, shown, self._most_voxels,
            )  # fmt: skip
        elif result.device.type != "cpu":
            result.to_host(f"out of memory on {device} with a window of {shown}")
        else:
            raise _too_little_memory(device, f"for a window of {shown}") from error


def _too_little_memory(device: torch.device, what: str) -> InputError:
    return InputError("memory", f"too little memory on {device} {what}", "more of it, or a smaller network")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _each_axis(name: str, value: Any, axes: int) -> tuple[Any, ...]:
    """One value for each axis."""
    values = _as_tuple(value)
    if len(values) == 1:
        return values * axes
    if len(values) != axes:
        raise ValueError(f"{name}: found {len(values)} values, allowed one or {axes}, as the inputs have axes")
    return values
