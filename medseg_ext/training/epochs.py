"""Tell a sampler which epoch it is in."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events


class _HasEpoch(Protocol):
    def set_epoch(self, epoch: int) -> None: ...


class SetSamplerEpoch:
    """Set the sampler's epoch before each epoch's iterator is made.

    MONAI's engines do this for torch's ``DistributedSampler`` alone.

    Args:
        sampler: anything with ``set_epoch``; it is given epochs counted from 0.
    """

    def __init__(self, sampler: _HasEpoch) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch - 1)
