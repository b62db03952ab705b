"""Smaller steps for the layers that are further from the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.transfer.patterns import check_patterns, matches
from medseg_ext.workflow.run import one_line_errors


@one_line_errors
def layer_groups(
    network: nn.Module, learning_rate: float, decay: float = 1.0, blocks: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer, a block of the network each, with its own learning rate.

    The last block has ``learning_rate``, each before it ``decay`` times that of the next (J. Howard and S. Ruder, 2018,
    arXiv 1801.06146, "discriminative fine-tuning"). A schedule that multiplies keeps the ratio.

    Args:
        network: the one that trains.
        learning_rate: of the last block.
        decay: above 0, 1 at the most; 1 makes a single group.
        blocks: regular expressions from the input to the output; a parameter belongs to the first that its name begins
            with. Empty takes the parts of the network in the order in which it lists them, which is theirs in MONAI's
            ``DynUNet``: down to the name that ends in a number, or two names deep.

    Returns:
        dictionaries with ``params``, ``lr`` and ``name``, from the input to the output.

    Raises:
        SystemExit: after one line, where ``decay`` is out of range, an expression matches nothing, or a parameter is in
            no block.
    """
    if not 0 < decay <= 1:
        raise InputError("layer_decay", repr(decay), "above 0, 1 at the most")
    named = list(network.named_parameters())
    check_patterns("blocks", blocks, [name for name, _ in named])
    if decay == 1:
        return [{"params": [parameter for _, parameter in named], "lr": learning_rate, "name": "all"}]
    groups: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in blocks}
    for name, parameter in named:
        block = next((pattern for pattern in blocks if matches(name, [pattern])), None) if blocks else _block(name)
        if block is None:
            raise InputError("blocks", f"none for {name}", "expressions for all parameters")
        groups.setdefault(block, []).append(parameter)
    filled = [(block, parameters) for block, parameters in groups.items() if parameters]
    return [
        {"params": parameters, "lr": learning_rate * decay ** (len(filled) - 1 - place), "name": block}
        for place, (block, parameters) in enumerate(filled)
    ]


def _block(name: str) -> str:
    parts = name.split(".")[:-1]
    for depth, part in enumerate(parts[:3]):
        if part.isdigit():
            return ".".join(parts[: depth + 1])
    return ".".join(parts[:2])
