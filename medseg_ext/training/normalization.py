"""Train with the statistics of batch normalisation that hold at inference."""

from __future__ import annotations

from types import MethodType

from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class FixNormalization:
    """Keep batch normalisation in evaluation mode from the start of a training, so that its statistics stay.

    A batch of patches of one kind (small cubes about a lesion, say) is normalised by itself in training and by the
    average of all kinds at inference, which shows in nothing but the result. Weights that have their statistics from
    batches of all kinds mixed go on learning under those. Scale and shift of the normalisation learn on.

    Args:
        network: the one that trains.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.fix)

    def fix(self, engine: Engine | None = None) -> None:
        """From now on ``train()`` of the network leaves its batch normalisation out."""
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                keep_in_eval(module)


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set how much of its running statistics each batch normalisation takes from a batch.

    For networks whose arguments do not reach all of them, as encoders made to be trained for days.

    Args:
        network: any. momentum: above 0, at most 1; PyTorch's own is 0.1.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum


def keep_in_eval(module: nn.Module) -> None:
    """Put a module without children into evaluation mode and have ``train()`` leave it there."""
    module.eval()
    # MONAI's trainer calls train() at every step
    module.train = MethodType(_stays, module)  # type: ignore[method-assign]


def is_kept_in_eval(module: nn.Module) -> bool:
    """Whether :func:`keep_in_eval` holds it."""
    return "train" in vars(module)


def release_from_eval(module: nn.Module) -> None:
    """Undo :func:`keep_in_eval`; the next ``train()`` of the network reaches the module again."""
    vars(module).pop("train", None)


def _stays(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
