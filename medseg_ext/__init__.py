"""What MONAI lacks for brain-MRI segmentation bundles: layouts, transforms, losses, inferers, metrics, reports."""

__version__ = "0.2.0"
