"""What ``--tracking mlflow`` records beside MONAI's defaults, and weights that come back from MLflow."""

from medseg_ext.tracking.run import TrackedRun
from medseg_ext.tracking.weights import weights_file

__all__ = ["TrackedRun", "weights_file"]
