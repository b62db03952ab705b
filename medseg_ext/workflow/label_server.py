"""What is different where a MONAI Label server trains a bundle: every request is a training of its own.

The server runs ``train.json`` with the annotator's images and labels in place of a data folder, and can neither name an
output folder nor know which one a training chose. A training by hand goes on in its output folder, and its weights stay
there; one by the server gets a new folder, and its weights also come to lie where the server looks for weights.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import psutil


def training_dir(bundle_root: str | os.PathLike[str]) -> str:
    """The output folder of a training that was given none.

    Args:
        bundle_root: the bundle's folder.

    Returns:
        ``<bundle_root>/results/training``; under a server that with the time at which this training was started, the
        same in all of its processes.
    """
    folder = str(Path(bundle_root) / "results" / "training")
    if not _under_label_server():
        return folder
    # torchrun's processes started one after the other, but torchrun itself once
    first = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid()
    return f"{folder}_{datetime.fromtimestamp(psutil.Process(first).create_time()):%Y%m%d_%H%M%S}"


def served_weights(bundle_root: str | os.PathLike[str]) -> str | None:
    """Where the weights of a finished training go besides its output folder: one of the server's choices of weights.

    Args:
        bundle_root: the bundle's folder.

    Returns:
        ``<bundle_root>/models/model_trained.pt`` under a server, else None.
    """
    return str(Path(bundle_root) / "models" / "model_trained.pt") if _under_label_server() else None


def _under_label_server() -> bool:
    return bool(os.environ.get("MONAI_LABEL_APP_DIR"))  # ``monailabel start_server`` sets it for all that it starts
