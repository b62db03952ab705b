"""Fold batch normalisation into the convolutions before it, which makes inference cheaper and changes nothing else."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Merge every batch normalisation that follows a convolution into that convolution, in place.

    In evaluation mode a batch normalisation is a fixed scale and shift a channel, which the weights and the bias of the
    convolution before it can carry. Only a normalisation that is the sole reader of its convolution's output is folded;
    what cannot be traced, or holds no such pair, stays as it is. The result is for inference alone: its state dict is
    no longer that of the network, and training it would train another one.

    Args:
        network: any module; it is put into evaluation mode.

    Returns:
        the network.

    Source: Jacob et al. 2018, section 3.2, arXiv 1712.05877.
    """
    network.eval()
    try:
        graph = fx.Tracer().trace(network)
    except Exception:  # noqa: BLE001 - a network that cannot be traced raises whatever its own code raises then
        return network
    calls = [node for node in graph.nodes if node.op == "call_module"]
    uses: dict[nn.Module, int] = {}
    for node in calls:
        module = network.get_submodule(str(node.target))
        uses[module] = uses.get(module, 0) + 1
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        norm, convolution = network.get_submodule(str(node.target)), network.get_submodule(str(before.target))
        if not isinstance(norm, _BatchNorm) or not isinstance(convolution, _CONVOLUTIONS):
            continue
        if norm.running_mean is None or uses[norm] > 1 or uses[convolution] > 1:
            continue
        _replace(network, str(before.target), fuse_conv_bn_eval(convolution, norm))
        _replace(network, str(node.target), nn.Identity())
    return network


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
