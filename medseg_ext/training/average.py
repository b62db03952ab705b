"""Update averaged weights after every step of a training, resumed or not."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from ignite.handlers.ema_handler import EMAHandler, EMAWarmUp

from medseg_ext.training.accumulation import completed_steps, completes_step


class UpdateAverage:
    """Attach ignite's exponential moving average to a trainer, with a momentum that the step's number alone decides.

    ``EMAHandler``'s own warm-up counts from the start of the process, so that a training continued after a kill would
    give its average up. And as an entry of a bundle's handlers this one is a dictionary, while the average itself has
    an id that the validation can refer to.

    Under several processes the averaged buffers (the statistics of batch normalisation, which each process gathers
    from its own samples) become those of the first process at the end of each epoch: all of them validate the network
    that is saved. Attach it before the ``ValidationHandler``.

    The average starts from the network that the training begins with: a handler attached before this one may have
    loaded weights since the average was made.

    Args:
        average: made with the final momentum and without a warm-up.
        first_momentum: momentum of the first step.
        warmup_iterations: steps over which it goes linearly to the final one.
    """

    NAME = "ema_momentum"  # of the attribute of the trainer's state

    def __init__(self, average: EMAHandler, first_momentum: float = 0.5, warmup_iterations: int = 100) -> None:
        self.average = average
        self.momentum_at = EMAWarmUp(first_momentum, warmup_iterations, average.momentum)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        step = Events.ITERATION_COMPLETED(event_filter=lambda engine, _: completes_step(engine))
        engine.add_event_handler(step, self.set_momentum)
        self.average.attach(engine, name=self.NAME, warn_if_exists=False, event=step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.share_buffers)

    def start(self, engine: Engine) -> None:
        """Take over the network's weights, where the training begins."""
        if engine.state.iteration == 0:
            self.average.ema_model.load_state_dict(self.average.model.state_dict())

    def set_momentum(self, engine: Engine) -> None:
        """Set the momentum of this step."""
        setattr(engine.state, self.NAME, self.momentum_at(completed_steps(engine)))

    def share_buffers(self) -> None:
        """Give every process the averaged buffers of the first one."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for buffer in self.average.ema_model.buffers():
            torch.distributed.broadcast(buffer, src=0)
