"""All that is known of a voxel in one byte, so that it is stored, cut and turned as one."""

from __future__ import annotations

import numpy as np
import torch

#: Bits of a voxel: inside tumour core, whole tumour, enhancing tumour; whether each of these is known.
INSIDE = (1, 2, 4)
KNOWN = (8, 16, 32)
#: In the brain; in the head, which is anything but air.
BRAIN, HEAD = 64, 128
ANY_INSIDE, ALL_KNOWN = sum(INSIDE), sum(KNOWN)
WHOLE_TUMOUR = INSIDE[1]
#: Target value where a region is not known, as the losses here take it.
IGNORE = -1.0


def encode_truth(regions: np.ndarray, known: np.ndarray | bool, brain: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Pack the truth.

    Args:
        regions: (3, H, W, D), other than 0 is inside: tumour core, whole tumour, enhancing tumour.
        known: where that holds; anything that broadcasts to ``regions``.
        brain: (H, W, D) bool. head: (H, W, D) bool.

    Returns:
        uint8 (H, W, D) of the bits above. What is not known is not inside.
    """
    known = np.broadcast_to(known, regions.shape)
    truth = np.where(brain, BRAIN, 0).astype(np.uint8)
    truth |= np.where(head, HEAD, 0).astype(np.uint8)
    for region, certain, inside, flag in zip(regions, known, INSIDE, KNOWN, strict=True):
        truth |= np.where(certain, flag, 0).astype(np.uint8)
        truth |= np.where(certain & (region != 0), inside, 0).astype(np.uint8)
    return truth


def target_from_truth(truth: torch.Tensor) -> torch.Tensor:
    """What a loss compares with: (3, ...) float32 of 0, 1, and `IGNORE` where a region is not known.

    Args:
        truth: uint8, any shape.
    """
    target = torch.stack([(truth & inside) != 0 for inside in INSIDE]).float()
    for channel, flag in zip(target, KNOWN, strict=True):
        channel.masked_fill_((truth & flag) == 0, IGNORE)
    return target
