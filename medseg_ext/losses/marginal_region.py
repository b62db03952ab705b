"""Dice and cross-entropy of exclusive classes of which some samples know only the union."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.modules.loss import _Loss

from medseg_ext.losses.statistics import mean_over, region_sums, soft_dice, sums_over_processes, to_safe_precision


class MarginalRegionLoss(_Loss):
    """Cross-entropy and batch-wise region Dice for softmax classes, learning from unions where only they are annotated.

    Marginal loss of Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation" (https://doi.org/10.1016/j.media.2021.101979): the classes exclude each other, so the probability of
    a union is the sum of its classes' probabilities, and any loss may be taken on that sum. Its exclusion loss is not
    needed here, as the target says of each voxel which classes are possible, and so which are not.

    **How the target says it.** One channel of class numbers, as for any softmax network; a further number, listed in
    ``unions``, stands for "one of these classes, not known which". With background 0, necrosis 1, edema 2, enhancing
    tumor 3 and ``unions={4: [1, 2, 3]}``, a fully annotated patient holds 0 to 3, one of whom only the whole tumor was
    outlined 0 and 4, and a voxel that takes no part ``ignore_value``. Samples of both kinds mix in a batch, and both
    codes in a sample. Numbers survive flips and nearest-neighbour resampling, so any transform for labels applies.

    Per voxel the cross-entropy is ``-log(sum of the possible classes' probabilities)``, averaged over the voxels that
    take part. The Dice is taken per region, a region being one class or a union of classes, with sums over batch
    and space as in :class:`~medseg_ext.losses.RegionDiceBCELoss`; a sample counts for a region where each of its voxels
    is known to be inside or outside of it: the patient above counts for the whole tumor, not for its parts. Regions
    that no sample knows are left out of the mean. The loss is ``dice_weight * mean(1 - dice) + ce_weight * mean(ce)``.

    For overlapping regions with a sigmoid each (TC, WT, ET), use :class:`~medseg_ext.losses.RegionDiceBCELoss` and put
    its ``ignore_value`` into the channels that a sample does not know.

    Several processes: the batch is that of all of them, as in :class:`~medseg_ext.losses.RegionDiceBCELoss`.

    Empty masks: a sample of background alone knows every region; a region without voxels in the batch costs
    ``sum(p) / (sum(p) + smooth)``, 0 for an empty prediction. Nothing known at all gives 0 and gradients of 0.

    Args:
        unions: number in the target -> the classes it may be. The number is none of the classes. Keys may be text, as
            they are in JSON. None when every class is annotated everywhere.
        regions: each a list of classes whose union is scored by Dice; None for each class but 0, and each union.
        dice_weight: factor of the Dice term.
        ce_weight: factor of the cross-entropy term.
        smooth: added to both sides of the Dice quotient, in voxels.
        ignore_value: number in the target of voxels that take no part.

    Raises:
        ValueError: when a weight is negative, a union or region is empty or holds negative classes, or ``ignore_value``
            is a union's number.
    """

    def __init__(
        self,
        unions: Mapping[int, Sequence[int]] | Mapping[str, Sequence[int]] | None = None,
        regions: Sequence[Sequence[int]] | None = None,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        smooth: float = 1.0,
        ignore_value: int = -1,
    ) -> None:
        super().__init__()
        for name, value in (("dice_weight", dice_weight), ("ce_weight", ce_weight), ("smooth", smooth)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, allowed 0 or more")
        self.unions = {int(number): sorted(set(classes)) for number, classes in (unions or {}).items()}
        self.regions = None if regions is None else [sorted(set(classes)) for classes in regions]
        for classes in (*self.unions.values(), *(self.regions or ())):
            if not classes or classes[0] < 0:
                raise ValueError(f"unions and regions: found classes {classes}, allowed one or more, from 0 up")
        if ignore_value in self.unions:
            raise ValueError(f"ignore_value: found {ignore_value}, allowed a number that is not in unions")
        self.dice_weight, self.ce_weight = float(dice_weight), float(ce_weight)
        self.smooth = float(smooth)
        self.ignore_value = ignore_value

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch, a scalar.

        Args:
            input: logits (B, C, spatial...), C exclusive classes, any float type; computed in float32 (float64 stays).
            target: (B, 1, spatial...), class numbers, union numbers or ``ignore_value``.

        Raises:
            ValueError: when the shapes do not fit, or the target holds a number that stands for nothing.
        """
        expected = (input.shape[0], 1, *input.shape[2:])
        if input.ndim < 3 or input.shape[1] < 2:
            raise ValueError(f"input: found shape {tuple(input.shape)}, allowed (batch, 2 or more classes, spatial...)")
        if tuple(target.shape) != expected:
            raise ValueError(f"target: found shape {tuple(target.shape)}, allowed {expected}")

        label = target.as_subclass(torch.Tensor)
        known = label != self.ignore_value
        possible = self.possible_classes(label, input.shape[1])
        logits = torch.where(known, to_safe_precision(input), 0)

        inside = logits.masked_fill(~possible, -torch.inf).logsumexp(1)
        entropy = (logits.logsumexp(1) - inside).sum()

        probability = torch.softmax(logits, 1) * known
        predicted, true, samples = self._regions(probability, possible, known)
        sums, (entropy, voxels, samples) = sums_over_processes(
            region_sums(predicted, true), entropy, known.sum(), samples
        )
        dice = soft_dice(sums, self.smooth)
        return self.dice_weight * mean_over(1 - dice, samples > 0) + self.ce_weight * entropy / voxels.clamp_min(1)

    def possible_classes(self, label: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Which classes each voxel may be: (B, C, spatial...) bool; all of them in voxels that take no part.

        Args:
            label: (B, 1, spatial...), class numbers, union numbers or ``ignore_value``.
            num_classes: number of classes C.

        Raises:
            ValueError: when the target holds a number that stands for nothing, or a union's number is a class.
        """
        for number, classes in self.unions.items():
            if 0 <= number < num_classes or classes[-1] >= num_classes:
                raise ValueError(
                    f"unions: found {number} for classes {classes}, allowed a number that is none of the"
                    f" classes 0 to {num_classes - 1}, for some of them"
                )
        channels = []
        for index in range(num_classes):
            numbers = [index, *(number for number, classes in self.unions.items() if index in classes)]
            channels.append(torch.isin(label, torch.tensor(numbers, device=label.device, dtype=label.dtype)))
        possible = torch.cat(channels, 1)
        known = label != self.ignore_value
        strangers = known & ~possible.any(1, keepdim=True)
        if strangers.any():
            found = sorted(label[strangers].unique().tolist())[:5]
            raise ValueError(
                f"target: found {found}, allowed classes 0 to {num_classes - 1}, unions {sorted(self.unions)} and"
                f" {self.ignore_value} for voxels that take no part"
            )
        return possible | ~known

    def _regions(
        self, probability: torch.Tensor, possible: torch.Tensor, known: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prediction and truth (B, R, spatial...), 0 where a sample does not count, and how many count (R,)."""
        num_classes = probability.shape[1]
        regions = self.regions
        if regions is None:
            regions = [[index] for index in range(1, num_classes)] + list(self.unions.values())
        predicted, true, scored = [], [], []
        for region in regions:
            if region[-1] >= num_classes:
                raise ValueError(f"regions: found classes {region}, allowed 0 to {num_classes - 1}")
            others = [index for index in range(num_classes) if index not in region]
            may_be_in = possible[:, region].any(1, keepdim=True)
            may_be_out = possible[:, others].any(1, keepdim=True)
            certain = (~(may_be_in & may_be_out & known)).flatten(1).all(1) & known.flatten(1).any(1)
            weight = certain.reshape(-1, *[1] * (known.ndim - 1))
            predicted.append(probability[:, region].sum(1, keepdim=True) * weight)
            true.append((may_be_in & known & weight).to(probability.dtype))
            scored.append(certain.sum())
        return torch.cat(predicted, 1), torch.cat(true, 1), torch.stack(scored)
