"""Put a lesion of one patient into the brain of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from medseg_ext.transforms.augment_volume import smooth, smooth_field
from medseg_ext.transforms.truth import ALL_KNOWN, ANY_INSIDE, BRAIN, HEAD, WHOLE_TUMOUR

#: Shares of the donor between which a voxel is neither of the two patients'.
_MIXED = (0.05, 0.95)
#: Voxels about the lesion without which the two brains are not compared.
_LEAST_RING = 50


@dataclass(frozen=True)
class Implantation:
    """How a lesion is put into another brain.

    Attributes:
        whole: probability that all of the donor's surroundings come along, not only the lesion and its rim.
        blend: width of the transition, voxels (the sigma of its profile).
        match: how much of the difference between the two brains about the lesion is taken away, uniform.
        contrast: factor on the lesion's difference from its surroundings, uniform.
    """

    whole: float = 0.3
    blend: float = 2.5
    match: tuple[float, float] = (0.6, 1.0)
    contrast: tuple[float, float] = (0.8, 1.2)


def donor_share(truth: torch.Tensor, blend: float, whole: bool, rng: np.random.Generator | None = None) -> torch.Tensor:
    """How much of each voxel is to be the donor's, 0 to 1.

    All of the lesion, falling to 0 within about ``2 * blend`` voxels of it. Where the donor's data end it falls to 0
    before them, along a rounded and uneven border: a network would soon know the straight edges of a cut-off lesion.

    Args:
        truth: (H, W, D) uint8 of the donor; nothing is known where its data end.
        blend: see :class:`Implantation`.
        whole: take all that the donor has.
        rng: source of the border's unevenness, None for an even one.
    """
    margin = math.ceil(3 * blend)
    # the blur repeats the ends of its lines, but beyond the donor's patch there is nothing of the donor
    data = torch.nn.functional.pad(((truth & ALL_KNOWN) != 0).float(), [margin] * 6)
    deep = smooth(data[None], 2 * blend)[0][tuple(slice(margin, margin + n) for n in truth.shape)]
    deep = deep / deep.max().clamp_min(1e-3)  # of a thin donor nothing would be deep enough
    level: torch.Tensor | float = 0.7
    if rng is not None:
        level = 0.7 + 0.12 * smooth_field(rng, tuple(truth.shape), 5).clamp(-1.5, 1.5)
    inside = ((deep - level) / 0.2 + 0.5).clamp(0, 1)
    if whole:
        return inside
    lesion = ((truth & WHOLE_TUMOUR) != 0).float()
    # a blurred half space is .5 at its border and .16 one sigma outside
    share = torch.maximum(((smooth(lesion[None], blend)[0] - 0.03) / 0.25).clamp(0, 1), lesion)
    return share * inside


def implant_lesion(
    image: torch.Tensor,
    truth: torch.Tensor,
    donor_image: torch.Tensor,
    donor_truth: torch.Tensor,
    corner: tuple[int, int, int],
    rng: np.random.Generator,
    implantation: Implantation,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the donor's lesion into a patch, after TumorCP (J. Yang et al., MICCAI 2021, arXiv 2107.09843).

    The lesion's surroundings are brought to the brightness of the tissue they come to lie in, sequence by sequence;
    its border and rim are blended. Where the two are mixed and either has lesion, nothing is known of the result.

    Args:
        image: (C, H, W, D) float32, normalised, 0 in the air.
        truth: (H, W, D) uint8.
        donor_image: (C, h, w, d), the same sequences. donor_truth: (h, w, d).
        corner: voxel of the patch that the donor's first voxel comes to; may lie outside.
        rng: source of the choices.
        implantation: ranges.

    Returns:
        image and truth, new; the ones given where the donor meets no brain.
    """
    low = [max(0, c) for c in corner]
    high = [min(n, c + m) for n, c, m in zip(truth.shape, corner, donor_truth.shape, strict=True)]
    whole = rng.random() < implantation.whole
    match, contrast = rng.uniform(*implantation.match), rng.uniform(*implantation.contrast, len(image))
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return image, truth
    rows, columns, slices = here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))

    share = donor_share(donor_truth, implantation.blend, whole, rng)[there]
    theirs, ours = donor_truth[there], truth[here]
    share = share * ((theirs & HEAD) != 0) * ((ours & BRAIN) != 0)
    if not (share > 0.5).any():
        return image, truth
    lesion = (theirs & WHOLE_TUMOUR) != 0
    normal = ((theirs | ours) & WHOLE_TUMOUR) == 0
    ring = normal & (share > _MIXED[0])
    moved = donor_image[:, there[0], there[1], there[2]]
    background = image[:, rows, columns, slices]
    if int(ring.sum()) >= _LEAST_RING:
        weights = (share * ring).double()
        weights /= weights.sum()
        their_level = (moved * weights).sum((1, 2, 3)).float().view(-1, 1, 1, 1)
        our_level = (background * weights).sum((1, 2, 3)).float().view(-1, 1, 1, 1)
        gain = torch.from_numpy(contrast.astype(np.float32)).view(-1, 1, 1, 1)
        # outside the lesion the tissue keeps its own contrast
        gain = torch.where(lesion, gain, torch.ones(()))
        moved = (moved - their_level) * gain + their_level + match * (our_level - their_level)

    result, label = image.clone(), truth.clone()
    result[:, rows, columns, slices] = background + share * (moved - background)
    taken = share > 0.5
    keep = 255 - ANY_INSIDE - ALL_KNOWN
    mixed = torch.where(taken, (ours & keep) | (theirs & (ANY_INSIDE | ALL_KNOWN)), ours)
    unsure = (share > _MIXED[0]) & (share < _MIXED[1]) & ~normal
    label[here] = torch.where(unsure, mixed & keep, mixed)
    return result, label
