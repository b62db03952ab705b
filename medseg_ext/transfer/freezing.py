"""Keep parts of a network as they are while the rest learns, for some epochs or for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from medseg_ext.errors import InputError
from medseg_ext.training.normalization import is_kept_in_eval, keep_in_eval, release_from_eval
from medseg_ext.transfer.patterns import check_patterns, matches
from medseg_ext.workflow.run import one_line_errors


class FreezeLayers:
    """Freeze parameters by name, and let them go epoch by epoch.

    What is frozen gets no gradient, so that the optimizer leaves it alone, weight decay included, and its batch and
    instance normalisation stays in evaluation mode, so that its statistics stay too. What is let go learns on with the
    groups it has in the optimizer.

    A training that is resumed freezes what its epoch freezes.

    Args:
        network: the one that trains.
        frozen: regular expressions; parameters whose names begin with one of them are frozen from the start.
        unfreeze: expressions by the epoch, counted from 1, at whose beginning what they match is let go:
            ``{5: ['backbone.bottleneck'], 10: ['backbone']}``.

    Raises:
        SystemExit: after one line, where an expression matches nothing, nothing is left to train or an epoch is none.
    """

    @one_line_errors
    def __init__(
        self,
        network: nn.Module,
        frozen: Sequence[str] = (),
        unfreeze: Mapping[int | str, Sequence[str]] | None = None,
    ) -> None:
        self.network = network
        self.frozen = tuple(frozen)
        names = [name for name, _ in network.named_parameters()]
        check_patterns("frozen", self.frozen, names)
        self.unfreeze: dict[int, tuple[str, ...]] = {}
        for epoch, patterns in (unfreeze or {}).items():
            if not str(epoch).isdigit() or int(epoch) < 1:  # YAML and JSON have names of either type
                raise InputError("unfreeze", f"epoch {epoch!r}", "whole numbers from 1")
            listed = (patterns,) if isinstance(patterns, str) else tuple(patterns)
            check_patterns("unfreeze", listed, [name for name in names if matches(name, self.frozen)])
            self.unfreeze[int(epoch)] = listed
        if names and all(self._is_frozen(name, 1) for name in names):
            raise InputError("frozen", "all parameters", "some that learn from the first epoch on")
        self._held: list[nn.Module] = []

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if self.frozen:
            engine.add_event_handler(Events.STARTED, self.check_processes)
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    @staticmethod
    def check_processes(engine: Engine) -> None:
        """Refuse several processes that would wait for the gradients of what is frozen."""
        parallel = getattr(engine, "network", None)
        if isinstance(parallel, nn.parallel.DistributedDataParallel) and not parallel.find_unused_parameters:
            raise InputError(
                "parallel_network::find_unused_parameters",
                "False with frozen layers",
                "True: --parallel_network::find_unused_parameters True",
            )

    def __call__(self, engine: Engine) -> None:
        """Freeze and let go what the epoch asks for."""
        self.apply(engine.state.epoch)

    def apply(self, epoch: int) -> None:
        """Freeze what is frozen in an epoch, counted from 1, and let all else go."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not self._is_frozen(name, epoch))
            if not parameter.requires_grad:
                parameter.grad = None
        for module in self._held:
            release_from_eval(module)
            module.train(self.network.training)
        norms = [(name, module) for name, module in self.network.named_modules() if isinstance(module, _NormBase)]
        # one that another handler holds stays its own
        self._held = [m for name, m in norms if self._is_frozen(f"{name}.", epoch) and not is_kept_in_eval(m)]
        for module in self._held:
            keep_in_eval(module)

    def _is_frozen(self, name: str, epoch: int) -> bool:
        gone = [pattern for start, patterns in self.unfreeze.items() if start <= epoch for pattern in patterns]
        return matches(name, self.frozen) and not matches(name, gone)
