"""What has to know of gradients that add up over several batches before the optimizer steps."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def completes_step(engine: Engine) -> bool:
    """Whether the optimizer steps in this iteration: MONAI's rule, each ``accumulation_steps``-th and an epoch's last.

    Args:
        engine: MONAI's ``SupervisedTrainer``, from the start of an iteration to its end; for any other engine every
            iteration is a step.
    """
    count = getattr(engine, "accumulation_steps", 1)
    length = engine.state.epoch_length
    done = (engine.state.iteration - 1) % length + 1 if length else engine.state.iteration
    return done % count == 0 or done == length


def completed_steps(engine: Engine) -> int:
    """Steps of the optimizer up to the end of this iteration, the one that it is part of included.

    Args:
        engine: as in :func:`completes_step`.
    """
    count = getattr(engine, "accumulation_steps", 1)
    length = engine.state.epoch_length
    if not length:
        return -(-engine.state.iteration // count)
    epochs, done = divmod(engine.state.iteration - 1, length)
    return epochs * -(-length // count) + done // count + 1


class SyncOnStep:
    """Let the processes exchange gradients only in the iterations in which the optimizer steps.

    Between them the gradients add up on each process; what is exchanged in the end is their sum, so that the result is
    the same and ``accumulation_steps`` batches share one exchange. What torch offers for it, ``no_sync``, is a context
    around the forward and the backward pass, which MONAI's trainers have no place for.

    Args:
        network: the one that the trainer calls; without ``DistributedDataParallel`` nothing is done.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        if isinstance(self.network, DistributedDataParallel):
            engine.add_event_handler(Events.ITERATION_STARTED, self.set_exchange, self.network)

    def set_exchange(self, engine: Engine, network: DistributedDataParallel) -> None:
        """Exchange in this iteration, or not: the flag that ``no_sync`` sets."""
        network.require_backward_grad_sync = completes_step(engine)
