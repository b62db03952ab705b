"""Random weights of a bundle's network, for tests that need some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser


def write_random_weights(bundle: Path, ids: Mapping[str, Any], path: Path) -> Path:
    """Write the state dict of ``network_def`` as ``inference.json`` has it, with some named values changed."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update(dict(ids))
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path
