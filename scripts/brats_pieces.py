"""Pack the partial BraTS sets into the pieces that the 3-D bundle trains on.

    python scripts/brats_pieces.py DATA UNPACKED HEADS DEST
    python scripts/brats_pieces.py DATA UNPACKED HEADS VAL_DEST --split val

DATA holds brats/patients.csv, brats/lgg_pairs.json, brats/cases and ms; UNPACKED lesions.npz, labels128.npz and
slices.npz; HEADS the folders TCGA_*. DEST gets three files a piece, which medseg_ext.training.read_pieces reads.
The heads of the splits val and test, which train nothing, go to folders of their own.
"""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from brats_sources import BratsSets, Item

from medseg_ext.training.memory import keep_freed_memory
from medseg_ext.training.pieces import make_piece, write_piece
from medseg_ext.workflow.run import one_line_errors

READERS: dict[str, Callable[[BratsSets, str], Iterator[Item]]] = {
    "cube": lambda sets, _: sets.cube_items(),
    "slice": lambda sets, _: sets.slice_items(),
    "head": lambda sets, split: sets.head_items(split),
    "case": lambda sets, _: sets.case_items(),
    "healthy": lambda sets, _: sets.healthy_items(),
}


def pack(
    sets: BratsSets, dest: Path, kinds: list[str], split: str = "train", limit: int | None = None
) -> collections.Counter[str]:
    """Write the pieces of some kinds; count them by kind.

    Args:
        sets: where the sets lie.
        dest: folder of the pieces.
        kinds: keys of ``READERS``.
        split: of the heads.
        limit: pieces a kind at most.
    """
    counts: collections.Counter[str] = collections.Counter()
    for kind in kinds:
        start, size = time.time(), 0
        for item in islice(READERS[kind](sets, split), limit):
            piece = make_piece(item, kind)
            write_piece(dest, piece)
            counts[kind] += 1
            size += piece.image.nbytes + piece.truth.nbytes
        print(f"{kind}: {counts[kind]} pieces, {size / 2**20:.0f} MiB, {time.time() - start:.0f} s", flush=True)
    return counts


@one_line_errors
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "unpacked", "heads", "dest"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kinds", nargs="+", choices=list(READERS), help="default: all, or heads for val and test")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train")
    parser.add_argument("--limit", type=int, help="pieces a kind at most")
    arguments = parser.parse_args()
    kinds = arguments.kinds or (list(READERS) if arguments.split == "train" else ["head"])
    if arguments.split != "train" and kinds != ["head"]:
        parser.error(f"--kinds: found {' '.join(kinds)}, allowed head with --split {arguments.split}")
    keep_freed_memory()  # the heads' volumes are large, and many
    sets = BratsSets(arguments.data, arguments.unpacked, arguments.heads)
    pack(sets, arguments.dest, kinds, arguments.split, arguments.limit)


if __name__ == "__main__":
    main()
