"""The plain forward pass in mixed precision on any device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where it pays: on GPUs that have it and on processors with bfloat16 instructions.

    MONAI's engines autocast on CUDA alone.
    """
    if not enabled:
        return nullcontext()
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    # without the instructions oneDNN emulates bfloat16, slower than float32
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and has_bf16_instructions():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def has_bf16_instructions() -> bool:
    """Whether the processor computes in bfloat16 instead of emulating it."""
    return _has_instructions("avx512_bf16", "amx_tile")


def bfloat16_pays_in_3d(device: torch.device | str) -> bool:
    """Whether 3-D convolutions are faster in mixed precision than in float32.

    They are on GPUs and on processors with AMX. AVX-512's bfloat16 instructions alone make 2-D convolutions faster and
    3-D ones slower (torch 2.13: 1.4 times as slow, at half the memory).

    Args:
        device: which computes.
    """
    return torch.device(device).type != "cpu" or _has_instructions("amx_tile")


def _has_instructions(*names: str) -> bool:
    """Whether the processor has any of these sets of instructions, by torch's names of them."""
    try:
        return any(getattr(torch.cpu, f"_is_{name}_supported")() for name in names)
    except AttributeError:  # these are private names of torch: without them stay in float32
        return False


class AutocastInferer(Inferer):
    """Call the network once in mixed precision and channels-last memory, and return float32.

    Args:
        amp: use bfloat16 (or float16 on GPUs without it) where the device computes it.

    Shapes: whatever the network maps, (B, C, H, W) or (B, C, H, W, D).
    """

    def __init__(self, amp: bool = True) -> None:
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run ``network(inputs, *args, **kwargs)``."""
        if isinstance(inputs, MetaTensor):  # its bookkeeping costs time in every layer
            inputs = inputs.as_tensor()
        layout = torch.channels_last if inputs.ndim == 4 else torch.channels_last_3d
        inputs = inputs.contiguous(memory_format=layout)
        with mixed_precision(inputs.device, self.amp):
            return network(inputs, *args, **kwargs).float()
