"""Lovasz hinge: the convex surrogate of the Jaccard index on logits."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from medseg_ext.losses.processes import gather_batch, sum_over_processes
from medseg_ext.losses.statistics import check_same_shape, mean_over, reduce, to_safe_precision


def jaccard_steps(sorted_truth: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """How much the Jaccard loss grows with each further voxel got wrong.

    With the voxels in a fixed order, entry i is ``J(first i+1 wrong) - J(first i wrong)`` where ``J`` is one minus
    intersection over union. Each row sums to 1 (the gradient of the Lovasz extension, Berman et al. 2018, algorithm 1).
    The differences are written out, because subtracting running quotients loses float32's digits in a 3-D volume.

    Args:
        sorted_truth: (rows, voxels) bool, the annotation in that order.
        dtype: floating type of the result.
    """
    missed = sorted_truth.cumsum(1)
    true = missed[:, -1:]
    kept = true - missed
    union = true + (~sorted_truth).cumsum(1)
    # a voxel of the mask leaves the intersection; one outside joins the union, which was smaller by one before
    outside = kept.to(dtype) / (union * (union - 1)).clamp_min(1).to(dtype)
    steps = torch.where(sorted_truth, 1 / union.to(dtype), outside)
    # an empty mask: the first false voxel takes the Jaccard loss from 0 to 1
    steps[:, 0] = torch.where(true[:, 0] == 0, 1, steps[:, 0])
    return steps


class LovaszHingeLoss(_Loss):
    """Lovasz extension of the Jaccard loss over hinge errors, per channel, on logits.

    Berman, Rannen Triki and Blaschko 2018, "The Lovasz-Softmax loss: a tractable surrogate for the optimization of the
    intersection-over-union measure in neural networks" (https://doi.org/10.1109/CVPR.2018.00464), binary case: the
    hinge errors ``max(0, 1 - logit)`` in the mask and ``max(0, 1 + logit)`` outside are sorted in falling order and
    weighted by how much each voxel, got wrong after those before it, adds to ``1 - IoU``. Where the error is the same,
    the value does not depend on the order. It is 0 where every logit is right by a margin of 1, and at least
    ``1 - IoU`` of the mask at threshold 0. Only the rank matters for the weights, so it serves best after, or beside,
    a voxel-wise loss.

    Empty masks: without a target voxel the loss is the largest hinge error alone, ``max(0, 1 + highest logit)``, so
    the gradient reaches one voxel; with ``batch=True`` such samples share the ranking of the others.

    Several processes: with ``batch=True`` they send each other their samples, which are ranked together; otherwise the
    mean is over the samples of all (:mod:`medseg_ext.losses.processes`).

    Args:
        reduction: over samples and channels: ``"mean"`` of those with a known voxel, ``"sum"`` or ``"none"``
            (shape (B, C), or (1, C) with ``batch=True``).
        batch: whether the batch is ranked as one image; otherwise each sample by itself.
        ignore_value: target value of voxels that take no part; None when there are none.
    """

    def __init__(
        self,
        reduction: LossReduction | str = LossReduction.MEAN,
        batch: bool = False,
        ignore_value: float | None = -1.0,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.batch = batch
        self.ignore_value = ignore_value

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            input: logits (B, C, spatial...), any float type; computed in float32 (float64 stays).
            target: (B, C, spatial...), 0 or 1 (a half and more counts as 1), or ``ignore_value``.

        Raises:
            ValueError: when the shapes differ.
        """
        check_same_shape(input, target)
        logits, label = to_safe_precision(input), to_safe_precision(target)
        if self.batch:
            logits, label = gather_batch(logits), gather_batch(label)
        logits, label = self._rows(logits), self._rows(label)
        truth = label >= 0.5
        counted = torch.ones_like(truth[:, 0])
        if self.ignore_value is not None:
            known = label != self.ignore_value
            counted = known.any(1)
            # outside the mask by the margin of 1: no error, so it sorts behind all that counts
            logits, truth = torch.where(known, logits, -1), truth & known

        errors = functional.relu(1 - torch.where(truth, logits, -logits))
        errors, order = errors.sort(dim=1, descending=True)
        with torch.no_grad():
            steps = jaccard_steps(truth.gather(1, order), errors.dtype)
        loss = (errors * steps).sum(1)

        if self.reduction == LossReduction.MEAN.value:
            if self.batch:
                return mean_over(loss, counted)
            total, rows = sum_over_processes((loss * counted).sum(), counted.sum())
            return total / rows.clamp_min(1)
        return reduce(loss.reshape(-1, input.shape[1]), self.reduction)

    def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """One row a ranking: (B * C, voxels), or (C, B * voxels) with ``batch``."""
        if self.batch:
            return tensor.transpose(0, 1).flatten(1)
        return tensor.flatten(2).flatten(0, 1)
