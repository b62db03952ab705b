"""Make a tensor of a network from that of another one: other dimensions, sequences, regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.networks.space_to_depth import SpaceToDepth
from medseg_ext.transfer.channels import ChannelLayout, input_mixing, mix, output_mixing
from medseg_ext.transfer.inflate import CONVOLUTIONS, Convolution, other_dimension
from medseg_ext.transfer.patterns import matches
from medseg_ext.transfer.sources import Source

Names = tuple[str, ...]


@dataclass
class Adaption:
    """Makes tensors of a network from those of a source.

    Args:
        network: the one to be filled.
        source: what from.
        channels: names of the sequences of the network and of the source, empty where not known.
        regions: names of the regions likewise.
        inputs, input_scale, inflation, flattening, input_layers, output_layers: see
            :func:`~medseg_ext.transfer.transfer_weights`.
    """

    network: nn.Module
    source: Source
    channels: tuple[Names, Names] = ((), ())
    regions: tuple[Names, Names] = ((), ())
    inputs: str = "name"
    input_scale: float = 1.0
    inflation: str = "centred"
    flattening: str = "sum"
    input_layers: Sequence[str] = ()
    output_layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._modules: dict[str, Convolution] = {
            name: module for name, module in self.network.named_modules() if isinstance(module, CONVOLUTIONS)
        }
        stems = [module for module in self.network.modules() if isinstance(module, SpaceToDepth)]
        self._factor = stems[0].factor if stems else 1
        names = list(self._modules)
        self._first = {name for name in names if matches(name, self.input_layers)} or set(names[:1])
        self._last = {name for name in names if matches(name, self.output_layers)} or set(names[-1:])

    def __call__(
        self, name: str, value: torch.Tensor, given: torch.Tensor
    ) -> tuple[torch.Tensor | None, list[str], torch.Tensor | None]:
        """What ``given`` becomes as the network's ``value``.

        Returns:
            The tensor, what was done to it, and which of its rows come from the source (None for all); or None and why
            it cannot be used.
        """
        layer, _, part = name.rpartition(".")
        module = self._modules.get(layer)
        kernel = part == "weight"
        fits = given.ndim == value.ndim or (kernel and {given.ndim, value.ndim} == {4, 5})
        if module is None or not fits:
            if given.shape != value.shape:
                return None, [_other_shape(value, given)], None
            return given, [], None
        made, notes = given.to(value.dtype), []
        transposed = isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        if kernel and given.ndim != value.ndim:
            made = other_dimension(made, module, self.inflation, self.flattening)
            deeper = given.ndim < value.ndim
            notes.append(f"inflated, {self.inflation}" if deeper else f"flattened, {self.flattening}")
        dims = self._source_dims(given)
        rows = None
        try:
            if kernel and layer in self._first:
                axis = 0 if transposed else 1
                made = self._adapt_inputs(made, axis, value.shape[axis], value.ndim - 2, dims, notes)
                if self.input_scale != 1:
                    made = made * self.input_scale
                    notes.append(f"times {self.input_scale:g}")
            if layer in self._last:
                axis = 1 if kernel and transposed else 0
                made, rows = self._adapt_outputs(made, value, axis, module.weight.ndim - 2, dims, notes)
        except InputError:
            raise
        except ValueError as error:
            return None, [str(error)], None
        if made.shape != value.shape:
            return None, [_other_shape(value, given)], None
        return made, notes, rows

    def _source_dims(self, given: torch.Tensor) -> int:
        """Spatial dimensions of the source; a bias does not show them, the kernels of its network do."""
        kernels = [value.ndim for value in (given, *self.source.tensors.values()) if value.ndim in {4, 5}]
        return kernels[0] - 2 if kernels else 0

    def _adapt_inputs(
        self, made: torch.Tensor, axis: int, wanted: int, dims: int, source_dims: int, notes: list[str]
    ) -> torch.Tensor:
        ours, theirs = self.channels
        have = made.shape[axis]
        if not ours or (not theirs and self.inputs != "name"):
            if have == wanted and dims == source_dims:
                return made
            theirs = theirs or _numbered("sequence", have // self._factor**source_dims)
            own = _numbered("sequence", wanted // self._factor**dims)
            ours = ours or (theirs if len(own) == len(theirs) else own)
            if self.inputs == "name" and len(ours) != len(theirs):
                raise ValueError("other sequences: name them, or inputs mean or repeat")
        elif not theirs:
            raise InputError(
                self.source.path, "weights that do not say of which sequences", "source_channels, or inputs mean"
            )
        target = ChannelLayout.of(ours, wanted, dims, self._factor)
        source = ChannelLayout.of(theirs, have, source_dims, self._factor)
        if target == source and self.inputs == "name":
            return made
        notes.append(f"{_listed(theirs)} to {_listed(ours)} by {self.inputs}")
        return mix(made, input_mixing(target, source, self.inputs), axis)

    def _adapt_outputs(
        self, made: torch.Tensor, value: torch.Tensor, axis: int, dims: int, source_dims: int, notes: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        ours, theirs = self.regions
        have, wanted = made.shape[axis], value.shape[axis]
        if not ours:
            if have == wanted and dims == source_dims:
                return made, None
            ours = _numbered("region", wanted // self._factor**dims)
            theirs = _numbered("region", have // self._factor**source_dims)
            if len(ours) != len(theirs):
                raise ValueError("other regions: name them to have those taken that both have")
        if not theirs:
            raise ValueError("regions of the source not known")
        target = ChannelLayout.of(ours, wanted, dims, self._factor)
        source = ChannelLayout.of(theirs, have, source_dims, self._factor)
        if target == source:
            return made, None
        mixing = output_mixing(target, source)
        rows = mixing.any(1)
        if not rows.any():
            raise ValueError(f"none of its regions ({_listed(ours)}) in the source ({_listed(theirs)})")
        mixed = mix(made, mixing, axis)
        if mixed.shape != value.shape:
            return mixed, None
        kept = rows.view(-1, *(1 for _ in range(value.ndim - 1 - axis)))
        notes.append(f"{_listed(theirs)} to {_listed(ours)} by name")
        return torch.where(kept, mixed, value.detach().to(mixed)), rows


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{what} {i}" for i in range(count))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def shape_text(shape: Sequence[int]) -> str:
    """(32, 4, 3, 3) as ``32x4x3x3``."""
    return "x".join(map(str, shape)) or "1"


def _other_shape(value: torch.Tensor, given: torch.Tensor) -> str:
    return f"of another shape ({shape_text(given.shape)} in the source, {shape_text(value.shape)} here)"
