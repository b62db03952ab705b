"""Load a state dict whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from medseg_ext.errors import InputError
from medseg_ext.files import read_json
from medseg_ext.workflow.run import one_line_errors


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a bare state dict without executing anything the file holds.

    Raises:
        InputError: the file is absent, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no file", "the weights of this network")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch.load raise nearly anything
        kind = type(error).__name__
        raise InputError(path, f"no readable weights ({kind})", "a state dict saved by torch") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(path, "something other than a bare state dict", "names with tensors, nothing around them")
    return state


def trained_channels(path: str | Path) -> list[str] | None:
    """The order of channels that weights were trained on: ``channel_order`` in the metadata of their bundle.

    Args:
        path: weights; those in a bundle's ``models`` are the bundle's own.

    Returns:
        None for weights that lie elsewhere, or in a bundle that does not say.
    """
    metadata = Path(path).absolute().parent.parent / "configs" / "metadata.json"
    try:
        content = read_json(metadata, "a bundle's metadata")
    except InputError:
        return None
    return content.get("channel_order") if isinstance(content, dict) else None


@one_line_errors
def load_weights(
    network: torch.nn.Module, path: str | Path, channel_order: Sequence[str] | None = None
) -> torch.nn.Module:
    """Fill ``network`` from a bare state dict.

    Args:
        network: every one of its parameters and buffers must be in the file, with its shape, and nothing else.
        path: a file that ``torch.save`` wrote from a state dict; read without executing anything it holds. Floating
            point values may be of another precision.
        channel_order: what the network will be given. Another order has the same shapes, so that nothing but the masks
            would tell; weights that a bundle ships refuse it.

    Returns:
        the network.

    Raises:
        SystemExit: with one line that names the file, when it is absent, damaged, or of another network
            or order of channels.
    """
    path = Path(path)
    state = read_weights(path)
    trained = trained_channels(path)
    if channel_order is not None and trained is not None and list(channel_order) != trained:
        raise InputError(
            "channel_order",
            ", ".join(channel_order),
            f"{', '.join(trained)}, as {path} was trained (the order in a 4-D NIfTI is nifti_channel_order)",
        )
    wanted = network.state_dict()
    missing, surplus = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    other = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    if missing or surplus or other:
        example = min(other or missing or surplus)
        raise InputError(
            path,
            f"weights of another network ({len(missing)} tensors missing, {len(surplus)} unknown, {len(other)} of "
            f"another shape, e.g. {example})",
            f"the {len(wanted)} tensors of {type(network).__name__}",
        )
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise InputError(path, f"values in {name} that are not finite", "finite weights")
    network.load_state_dict(state)
    return network
