"""Keep a bad batch from throwing a training off."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

from medseg_ext.training.accumulation import completes_step


class ClipGradients:
    """Scale the gradients of a step down to a norm, between the backward pass and the optimizer.

    Gradients that are not finite become 0. Where they add up over several batches, it is their sum that is scaled.

    Args:
        network: the one that trains.
        norm: highest norm of all gradients together.
    """

    def __init__(self, network: nn.Module, norm: float) -> None:
        self.network = network
        self.norm = norm

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if completes_step(engine):
            self.clip()

    def clip(self) -> None:
        """Scale the gradients that there are."""
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.norm)
        if not torch.isfinite(norm):
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
