"""Sums and batches over all processes of a training, with their gradients.

Every process computes the same loss ``L`` from the global sums ``S = sum_q s_q`` of what the processes add. Wanted is
the gradient of one process that has the whole batch::

    dL/dw = sum_q dL/dS * ds_q/dw

``DistributedDataParallel`` makes of the processes' gradients ``g_q`` their *mean*, so that ``g_q`` has to be
``W * dL/dS * ds_q/dw`` with ``W`` processes. That is what an all-reduce by sum in the backward pass gives: the gradient
with respect to ``s_q`` is the sum over processes of what each one's loss makes of ``S``, ``W * dL/dS`` when all losses
are the same. The factor ``W`` and the mean's ``1 / W`` cancel, and no loss is scaled anywhere.

It follows that a loss has to be made of global sums alone, or, where a part of it is a mean over the own samples,
that all processes have as many: the mean of these means is the mean over all samples then, in value and gradient.
"""

from __future__ import annotations

from typing import Any

import torch

from medseg_ext.processes import process_count, process_rank


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce by sum, forward and backward; torch's own (``torch.distributed.nn``) is deprecated from 2.13 on."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _SumOverProcesses.apply(gradient)


class _GatherBatch(torch.autograd.Function):
    """All-gather along the batch; backward, the sum over processes of each one's gradient of the own part."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(process_count())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = _SumOverProcesses.apply(gradient)
        return total.chunk(process_count())[process_rank()]


def sum_over_processes(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Add up tensors over all processes, in one operation; each process has to call, as often.

    Args:
        tensors: of the same shapes on every process. They travel as float64, so that counts stay exact.

    Returns:
        the sums, in the dtypes of ``tensors``; with one process the tensors themselves.
    """
    if process_count() == 1:
        return tensors
    packed = torch.cat([tensor.double().flatten() for tensor in tensors])
    totals = _SumOverProcesses.apply(packed).split([tensor.numel() for tensor in tensors])
    return tuple(total.view_as(own).to(own.dtype) for total, own in zip(totals, tensors, strict=True))


def gather_batch(tensor: torch.Tensor) -> torch.Tensor:
    """The samples of all processes, for what no sums tell: every process then holds the global batch.

    Args:
        tensor: (B, ...), of the same shape on every process.

    Returns:
        (W * B, ...) with W processes; with one process the tensor itself.
    """
    return tensor if process_count() == 1 else _GatherBatch.apply(tensor)
