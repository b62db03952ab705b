"""Truth in one byte a voxel: by hand, and as the losses take it."""

from __future__ import annotations

import numpy as np
import torch

from medseg_ext.losses import RegionDiceBCELoss
from medseg_ext.transforms import encode_truth, target_from_truth

# four voxels: edema, enhancing tumour, air, edema of which only the whole tumour is known
REGIONS = np.array([[0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]]).reshape(3, 1, 1, 4)
KNOWN = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool).reshape(3, 1, 1, 4)
HEAD = np.array([1, 1, 0, 1], bool).reshape(1, 1, 4)


def test_bits() -> None:
    truth = encode_truth(REGIONS, KNOWN, HEAD, HEAD)
    assert truth.dtype == np.uint8
    head = 64 + 128
    assert truth.ravel().tolist() == [head + 56 + 2, head + 56 + 7, 56, head + 16 + 2]


def test_target() -> None:
    target = target_from_truth(torch.from_numpy(encode_truth(REGIONS, KNOWN, HEAD, HEAD)))
    assert target[:, 0, 0].tolist() == [[0, 1, 0, -1], [1, 1, 0, 1], [0, 1, 0, -1]]


def test_known_may_be_one_value() -> None:
    target = target_from_truth(torch.from_numpy(encode_truth(REGIONS, False, HEAD, HEAD)))
    assert (target == -1).all()


def test_loss_of_partly_known_voxels_by_hand() -> None:
    target = target_from_truth(torch.from_numpy(encode_truth(REGIONS, KNOWN, HEAD, HEAD)))[None]
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[:, :, ..., 3] = torch.tensor([50.0, 0.0, -50.0]).view(1, 3, 1, 1)  # of core and enhancing nothing is known
    logits.requires_grad_()
    loss = RegionDiceBCELoss(smooth=0.0, bce_weight=0.0, reduction="none")(logits, target)
    # probability .5 everywhere: 2 * .5 / (3 * .5 + 1) of three known voxels; 2 * 1.5 / (4 * .5 + 3) of four
    torch.testing.assert_close(loss, 1 - torch.tensor([1 / 2.5, 3 / 5, 1 / 2.5]))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0, 3].tolist()[0] == logits.grad[0, :, 0, 0, 3].tolist()[2] == 0
    assert logits.grad[0, 1, 0, 0, 3] != 0
