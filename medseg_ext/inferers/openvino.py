"""Run a torch network by OpenVINO, which is faster on many processors."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from medseg_ext.errors import InputError
from medseg_ext.inferers.autocast import has_bf16_instructions

PRECISIONS = ("auto", "bf16", "f32")


def _load(module: str, extra: str) -> Any:
    """Import an optional package on first use: without the extra everything else works."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            "backend", f"no package {module}", f"it installed, as by: pip install 'medseg-ext[{extra}]'"
        ) from error


class OpenVINONetwork(torch.nn.Module):
    """A torch network, converted at its first call and compiled by OpenVINO for windows of any size.

    Convert a network in evaluation mode. Weights that change afterwards, as by a training or by loading a file, are
    noticed, and the network is converted anew.

    Args:
        network: maps one tensor (1, C, *spatial) to one tensor. It is traced, so that its path must not depend on the
            values it sees.
        precision: "bf16", "f32", or "auto" for bfloat16 on processors with instructions for it.
        trace_size: spatial size of the input to trace with, small but allowed by the network; None for that of the
            first call's, which costs a pass of that size.
        threads: threads of OpenVINO, None for as many as torch has.

    Shapes: (1, C, *spatial) to what the network makes of it, float32 in host memory.

    Raises:
        InputError: OpenVINO is not installed.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        precision: str = "auto",
        trace_size: Sequence[int] | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision: found {precision!r}, allowed {', '.join(map(repr, PRECISIONS))}")
        self.network = network
        self.precision = precision
        self.trace_size = None if trace_size is None else tuple(trace_size)
        self.threads = threads
        self._calibration: list[torch.Tensor] = []
        self._compiled: Any = None
        self._state: tuple[tuple[int, int], ...] = ()

    def quantize(self, windows: Iterable[torch.Tensor]) -> OpenVINONetwork:
        """Compute with 8-bit integers from the next call on.

        Args:
            windows: some (1, C, *spatial) of images like those to come, by whose activations the integers' ranges are
                chosen. Compare the result with the plain network's before you rely on it.

        Raises:
            InputError: NNCF is not installed.
        """
        _load("nncf", "openvino")
        self._calibration = [window.float().cpu() for window in windows]
        if not self._calibration:
            raise ValueError("windows: found none, allowed one or more")
        self._compiled = None
        return self

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on one window."""
        if args or kwargs:
            raise ValueError("network: found further arguments, allowed the image alone by OpenVINO")
        state = tuple(
            (tensor.data_ptr(), tensor._version) for tensor in self.network.state_dict(keep_vars=True).values()
        )
        if self._compiled is None or state != self._state:
            self._compiled = self._compile(x)
            self._state = state
        return torch.from_numpy(self._compiled(x.detach().float().cpu().contiguous().numpy())[0])

    def _compile(self, x: torch.Tensor) -> Any:
        openvino = _load("openvino", "openvino")
        example = x.new_zeros((1, x.shape[1], *(self.trace_size or x.shape[2:])), dtype=torch.float32)
        device = next((parameter.device for parameter in self.network.parameters()), x.device)
        with torch.no_grad():
            # -1: any size, so that each patient's box does not compile it again
            model = openvino.convert_model(
                self.network, example_input=example.to(device), input=[[-1, x.shape[1], *([-1] * (x.ndim - 2))]]
            )
        if self._calibration:
            nncf = _load("nncf", "openvino")
            data = nncf.Dataset([window.numpy() for window in self._calibration])
            model = nncf.quantize(model, data, subset_size=len(self._calibration))
        return _core().compile_model(model, "CPU", self._options())

    def _options(self) -> dict[str, Any]:
        bf16 = has_bf16_instructions() if self.precision == "auto" else self.precision == "bf16"
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads or torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }


@functools.cache
def _core() -> Any:
    return _load("openvino", "openvino").Core()
