"""Start a network from the weights of another one, and say exactly what came from where."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.transfer.adaption import Adaption, shape_text
from medseg_ext.transfer.channels import INPUT_MODES
from medseg_ext.transfer.inflate import FLATTENINGS, INFLATIONS
from medseg_ext.transfer.names import match_names
from medseg_ext.transfer.patterns import check_patterns, matches
from medseg_ext.transfer.report import Outcome, Row, TransferReport
from medseg_ext.transfer.sources import read_source
from medseg_ext.workflow.run import one_line_errors


def transfer_weights(
    network: nn.Module,
    source: str | os.PathLike[str],
    *,
    sha256: str = "",
    key: str = "",
    cache: str | os.PathLike[str] | None = None,
    channels: Sequence[str] = (),
    source_channels: Sequence[str] = (),
    regions: Sequence[str] = (),
    source_regions: Sequence[str] = (),
    layers: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    inputs: str = "name",
    input_scale: float = 1.0,
    inflation: str = "centred",
    flattening: str = "sum",
    input_layers: Sequence[str] = (),
    output_layers: Sequence[str] = (),
    least_share: float = 0.5,
) -> TransferReport:
    """Fill a network from another one's weights, whole or not at all.

    A tensor of the same name and shape is taken as it is. Kernels of a 2-D network are inflated for a 3-D one and the
    other way round, the first convolution is adapted to other sequences and the last to other regions. What has
    another width, or is not there, keeps the values the network has.

    Args:
        network: any module; a stem of :class:`~medseg_ext.networks.SpaceToDepth` is taken into account, and the source
            is taken to have the same.
        source, sha256, key, cache: see :func:`~medseg_ext.transfer.read_source` (``sha256`` is its ``digest``).
        channels: names of the sequences that the network is given, in order; empty to take the first convolution by
            position.
        source_channels: names of those that the source was given; empty for what its bundle says.
        regions: names of the regions that the network predicts; empty to take the last convolution by position.
        source_regions: names of those that the source predicts; empty for what its bundle says. Where nothing says,
            and the network's have names, the last convolution stays fresh.
        layers: regular expressions; parameters whose names begin with one of them are to be filled. Empty for all.
        rename: replacements in the source's names by regular expression, see :func:`~medseg_ext.transfer.match_names`.
        inputs: how a first convolution is made for other sequences, see
            :func:`~medseg_ext.transfer.channels.input_names_matrix`.
        input_scale: factor on the weights of the first convolution, for inputs in another unit: the value that the
            source was given where the network is given 1.
        inflation: see :func:`~medseg_ext.networks.slice_taps`.
        flattening: see :func:`~medseg_ext.transfer.inflate.flatten_kernel`.
        input_layers: regular expressions of the convolutions that take the image; empty for the network's first.
        output_layers: of those that give the regions; empty for its last.
        least_share: refuse where a smaller share of the parameters of ``layers`` would be filled.

    Returns:
        what became of each tensor.

    Raises:
        InputError: the source cannot be used, an argument is wrong, or too little would be filled; the network is as
            it was.
    """
    for what, option, allowed in (
        ("inputs", inputs, INPUT_MODES),
        ("inflation", inflation, INFLATIONS),
        ("flattening", flattening, FLATTENINGS),
    ):
        if option not in allowed:
            raise InputError(what, repr(option), " or ".join(map(repr, allowed)))
    if not 0 < input_scale < math.inf:
        raise InputError("input_scale", repr(input_scale), "a number above 0")
    found = read_source(source, sha256, key, cache)
    aliases = _aliases(network)
    own: dict[str, torch.Tensor] = {
        name: value for name, value in [*network.named_parameters(), *network.named_buffers()] if name in aliases
    }
    for what, patterns in (("layers", layers), ("input_layers", input_layers), ("output_layers", output_layers)):
        check_patterns(what, patterns, own)
    adaption = Adaption(
        network,
        found,
        channels=(tuple(channels), tuple(source_channels) or found.channels or ()),
        regions=(tuple(regions), tuple(source_regions) or found.regions or ()),
        inputs=inputs,
        input_scale=input_scale,
        inflation=inflation,
        flattening=flattening,
        input_layers=input_layers,
        output_layers=output_layers,
    )
    names = match_names(found.tensors, list(aliases), rename)
    of_own = {aliases[alias]: theirs for alias, theirs in reversed(names.items())}
    filled: dict[str, torch.Tensor] = {}
    rows: list[Row] = []
    spare: dict[str, str] = {}
    for name, value in own.items():
        theirs = of_own.get(name, "")
        chosen = not layers or matches(name, layers)
        outcome, how, count = _outcome(adaption, name, value, theirs, chosen, filled)
        if outcome == "fresh" and theirs:
            spare[theirs] = how
        shown = f"{theirs} {shape_text(found.tensors[theirs].shape)}" if theirs else ""
        shape = shape_text(value.shape)
        parameter = isinstance(value, nn.Parameter)
        rows.append(Row(name, outcome, value.numel(), count, how, shape, shown, chosen, parameter))
    taken = set(names.values()) - set(spare)
    for theirs, tensor in found.tensors.items():
        if theirs not in taken:
            how = spare.get(theirs, "no such tensor in the network")
            rows.append(Row(theirs, "unused", tensor.numel(), 0, how, shape_text(tensor.shape), theirs))
    report = TransferReport(str(found.path), found.sha256, tuple(rows))
    if report.share < least_share or not filled:
        raise InputError(found.path, _too_little(report), f"{least_share:.0%} or more (least_share)")
    with torch.no_grad():
        for name, value in filled.items():
            own[name].copy_(value)
    return report


def _too_little(report: TransferReport) -> str:
    fresh = [row for row in report.of("fresh") if row.chosen and row.parameter]
    largest = max(fresh, key=lambda row: row.values, default=None)
    why = f", e.g. {largest.name} ({largest.how})" if largest else ""
    return f"weights for {report.share:.1%} of the parameters{why}"


def _aliases(network: nn.Module) -> dict[str, str]:
    """The name under which a tensor counts, by each of its names in the state dict: some networks list parts twice."""
    first: dict[int, str] = {}
    named = [*network.named_parameters(), *network.named_buffers()]
    for name, value in named:
        first.setdefault(id(value), name)
    state = network.state_dict(keep_vars=True)
    return {name: first[id(value)] for name, value in state.items() if id(value) in first}


def _outcome(
    adaption: Adaption,
    name: str,
    value: torch.Tensor,
    theirs: str,
    chosen: bool,
    filled: dict[str, torch.Tensor],
) -> tuple[Outcome, str, int]:
    """Outcome, how or why not, and values filled; what is filled goes into ``filled``."""
    if not chosen:
        return "fresh", "not one of the layers asked for", 0
    if not theirs:
        return "fresh", "no such tensor in the source", 0
    made, notes, rows = adaption(name, value, adaption.source.tensors[theirs])
    if made is None:
        return "fresh", "; ".join(notes), 0
    filled[name] = made
    count = value.numel() if rows is None else int(rows.sum()) * (value.numel() // len(rows))
    return ("adapted" if notes else "loaded"), "; ".join(notes), count


class WeightInitializer:
    """:func:`transfer_weights` as a component of a config.

    Call it in ``initialize``, before anything copies the network (an average of its weights does), or make it a handler
    of the trainer: then it starts the network when the training starts, unless that goes on from an earlier state.

    Args:
        network: what to fill.
        source: see :func:`transfer_weights`; empty leaves the network as it is.
        copies: other networks that start as this one, such as its average where a handler fills it.
        output_dir: where ``transfer.csv`` is written, a row a tensor; None for no file. Name it among the files of
            :class:`~medseg_ext.tracking.TrackedRun`, and MLflow has it too.
        quiet: print no table, as all processes but the first do.
        options: the keyword arguments of :func:`transfer_weights`.
    """

    FILE = "transfer.csv"

    def __init__(
        self,
        network: nn.Module,
        source: str | os.PathLike[str] = "",
        copies: Sequence[nn.Module] = (),
        output_dir: str | os.PathLike[str] | None = None,
        quiet: bool = False,
        **options: object,
    ) -> None:
        self.network = network
        self.source = source
        self.copies = tuple(copies)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.quiet = quiet
        self.options = options
        self.report: TransferReport | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)

    def start(self, engine: Engine) -> None:
        """Start the network, unless the training has begun already."""
        if engine.state.iteration == 0:
            self()

    @one_line_errors
    def __call__(self) -> TransferReport | None:
        """Start the network, print what became of it, write it.

        Raises:
            SystemExit: after one line, where the source cannot be used.
        """
        if not self.source:
            return None
        self.report = transfer_weights(self.network, self.source, **self.options)  # type: ignore[arg-type]
        for copy in self.copies:
            copy.load_state_dict(self.network.state_dict())
        if not self.quiet:
            self.report.print()
            if self.output_dir is not None:
                self.report.write(self.output_dir / self.FILE)
        return self.report


__all__ = ["WeightInitializer", "transfer_weights"]
