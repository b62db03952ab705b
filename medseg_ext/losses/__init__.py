"""Segmentation losses that MONAI lacks; each works as ``loss(input, target)`` in a bundle's config."""

from medseg_ext.losses.focal_tversky import FocalTverskyLoss
from medseg_ext.losses.log_cosh_dice import LogCoshDiceLoss
from medseg_ext.losses.lovasz_hinge import LovaszHingeLoss
from medseg_ext.losses.marginal_region import MarginalRegionLoss
from medseg_ext.losses.region_dice_bce import RegionDiceBCELoss

__all__ = ["FocalTverskyLoss", "LogCoshDiceLoss", "LovaszHingeLoss", "MarginalRegionLoss", "RegionDiceBCELoss"]
