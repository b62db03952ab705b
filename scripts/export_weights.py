"""Turn the weights of a training into those a bundle ships: float16, a bare state dict.

    python scripts/export_weights.py OUT/model_best.pt bundles/NAME/models/model.pt

Prints the SHA-256 that belongs into the model card.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically
from medseg_ext.reports import sha256
from medseg_ext.workflow.run import one_line_errors
from medseg_ext.workflow.weights import read_weights

FLOAT16 = torch.finfo(torch.float16)


def to_half(state: dict[str, torch.Tensor], source: Path) -> dict[str, torch.Tensor]:
    """The same tensors in float16; names that share one tensor, as those of ``DynUNet`` do, still share it.

    Args:
        state: a bare state dict.
        source: its file, for the error.

    Raises:
        InputError: for values that are not finite, or beyond the range of float16.
    """
    halves: dict[tuple[object, ...], torch.Tensor] = {}
    result = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            result[name] = tensor
            continue
        same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        half = halves.setdefault(same, tensor.half().contiguous())
        if not torch.isfinite(half).all():
            largest = float(tensor.abs().max())
            raise InputError(
                source, f"{name} with values up to {largest:g}", f"{FLOAT16.max:g} at the most, for float16"
            )
        result[name] = half
    return result


@one_line_errors
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="state dict that a training wrote")
    parser.add_argument("output", type=Path, help="where the bundle's weights go")
    args = parser.parse_args()
    # through memory: the name of the file would become part of the archive and change its checksum
    stream = io.BytesIO()
    torch.save(to_half(read_weights(args.weights), args.weights), stream)
    write_atomically(args.output, stream.getvalue())
    print(f"{args.output}: {len(stream.getvalue()) / 1e6:.1f} MB, sha256 {sha256(args.output)}")


if __name__ == "__main__":
    main()
