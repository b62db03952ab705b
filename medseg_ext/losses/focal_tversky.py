"""Focal Tversky loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.losses import TverskyLoss
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from medseg_ext.losses.processes import gather_batch
from medseg_ext.losses.statistics import reduce, to_safe_precision

LINEAR_BELOW = 1e-6  # the root's slope is infinite at 0: under this it is replaced by the chord


class FocalTverskyLoss(_Loss):
    """Tversky loss raised to ``1 / gamma``, so that regions found badly weigh more than those found well.

    Abraham and Khan 2019, "A novel focal Tversky loss function with improved attention U-Net for lesion segmentation"
    (https://doi.org/10.1109/ISBI.2019.8759329), here on MONAI's :class:`monai.losses.TverskyLoss`. Per sample and
    channel (with ``batch=True`` per channel)::

        loss = (1 - (TP + smooth) / (TP + alpha * FP + beta * FN + smooth)) ** (1 / gamma)

    ``alpha`` and ``beta`` mean what they mean in MONAI: ``alpha`` weighs false positives, ``beta`` false negatives. The
    paper names them the other way round; the defaults are its choice, false negatives at 0.7 and ``gamma`` 4/3. (The
    ``gamma`` of MONAI's ``AsymmetricUnifiedFocalLoss`` is another one.) At most 1, exactly 0 at the perfect
    prediction; under 1e-6 the power is replaced by a straight line, whose slope at 0 is finite.

    Empty masks: without a target voxel the loss is ``(1 - smooth / (alpha * sum(p) + smooth)) ** (1 / gamma)``, 0 for
    an empty prediction; use ``batch=True`` or a larger ``smooth`` where many samples are empty.

    Several processes: with ``batch=True`` they send each other their samples, and every one computes the loss of all
    (:mod:`medseg_ext.losses.processes`); otherwise each has the mean over its own samples, of which all have as many.

    Args:
        include_background: whether channel 0 takes part.
        to_onehot_y: whether the target holds class numbers (B, 1, spatial...) to be made one-hot.
        sigmoid: apply a sigmoid to the input first.
        softmax: apply a softmax over the channels first.
        other_act: another activation to apply first. Without any of the three the input holds probabilities.
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: focus; 1 gives the Tversky loss, the paper uses 1 to 3.
        reduction: over samples and channels: ``"mean"``, ``"sum"`` or ``"none"`` (shape (B, C), or (C,)).
        smooth: added to both sides of the quotient, in voxels.
        batch: whether to sum over the batch before dividing.
        ignore_index: as in MONAI: the class number, or the value in a one-channel target, whose voxels take no part.
            (In a target of several channels MONAI takes a value that is no class number for "all channels 0"; for
            regions unknown in part see :class:`~medseg_ext.losses.RegionDiceBCELoss`.)

    Raises:
        ValueError: when ``gamma`` or ``smooth`` is not positive, or more than one activation is asked for.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable | None = None,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        reduction: LossReduction | str = LossReduction.MEAN,
        smooth: float = 1e-5,
        batch: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        for name, value in (("gamma", gamma), ("smooth", smooth)):
            if not value > 0:
                raise ValueError(f"{name}: found {value}, allowed more than 0")
        super().__init__(reduction=LossReduction(reduction).value)
        self.tversky = TverskyLoss(
            include_background=include_background,
            to_onehot_y=to_onehot_y,
            sigmoid=sigmoid,
            softmax=softmax,
            other_act=other_act,
            alpha=alpha,
            beta=beta,
            reduction=LossReduction.NONE,
            smooth_nr=smooth,
            smooth_dr=smooth,
            batch=batch,
            ignore_index=ignore_index,
        )
        self.gamma = float(gamma)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            input: (B, C, spatial...), any float type; computed in float32 (float64 stays).
            target: (B, C, spatial...) of 0..1, or (B, 1, spatial...) with ``to_onehot_y``.
        """
        input, target = to_safe_precision(input), to_safe_precision(target)
        if self.tversky.batch:
            input, target = gather_batch(input), gather_batch(target)
        tversky = self.tversky(input, target)
        power = 1 / self.gamma
        curve = tversky.clamp_min(LINEAR_BELOW) ** power
        chord = tversky * LINEAR_BELOW ** (power - 1)
        return reduce(torch.where(tversky > LINEAR_BELOW, curve, chord), self.reduction)
