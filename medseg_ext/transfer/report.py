"""What became of each tensor of a network and of its source."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from medseg_ext.reports.tables import write_csv

Outcome = Literal["loaded", "adapted", "fresh", "unused"]
WIDTH = 120  # of the table where there is no terminal
OUTCOMES: tuple[Outcome, ...] = ("loaded", "adapted", "fresh", "unused")


@dataclass(frozen=True)
class Row:
    """One tensor.

    Args:
        name: in the network; of an unused one that in the source.
        outcome: ``loaded`` as it is, ``adapted``, ``fresh`` (left as the network had it) or ``unused`` (of the source).
        values: how many it has.
        filled: how many of them come from the source; of a last convolution with a new region not all.
        how: what was done to it, or why nothing.
        shape, source: its shape, and name and shape in the source.
        chosen: whether ``layers`` asked for it. parameter: whether it is one, or else a buffer.
    """

    name: str
    outcome: Outcome
    values: int
    filled: int = 0
    how: str = ""
    shape: str = ""
    source: str = ""
    chosen: bool = True
    parameter: bool = True


@dataclass(frozen=True)
class TransferReport:
    """All tensors, and what they come to.

    Args:
        source: the file they come from.
        sha256: of it.
        rows: a tensor each.
    """

    source: str
    sha256: str
    rows: tuple[Row, ...]

    @property
    def share(self) -> float:
        """Share of the parameters that were asked for which come from the source, 0 to 1."""
        asked = [row for row in self.rows if row.chosen and row.parameter and row.outcome != "unused"]
        return sum(row.filled for row in asked) / max(1, sum(row.values for row in asked))

    @property
    def share_of_network(self) -> float:
        """The same of all parameters of the network."""
        own = [row for row in self.rows if row.parameter and row.outcome != "unused"]
        return sum(row.filled for row in own) / max(1, sum(row.values for row in own))

    def of(self, outcome: Outcome) -> list[Row]:
        """The rows of one outcome."""
        return [row for row in self.rows if row.outcome == outcome]

    def groups(self) -> list[tuple[Outcome, str, list[Row]]]:
        """Rows of the same outcome for the same reason, in the order in which the outcomes are named."""
        made: dict[tuple[Outcome, str], list[Row]] = {}
        for outcome in OUTCOMES:
            for row in self.of(outcome):
                made.setdefault((outcome, row.how), []).append(row)
        return [(outcome, how, rows) for (outcome, how), rows in made.items()]

    def print(self) -> None:
        """Print the groups as a table."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        title = f"{self.source}: {self.share:.1%} of the parameters asked for, {self.share_of_network:.1%} of all"
        table = Table(title=Text(title), title_justify="left")
        for heading, justify in (("", "left"), ("tensors", "right"), ("values", "right")):
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("how, or why not")
        table.add_column("the first of them")
        for outcome, how, rows in self.groups():
            values = sum(row.filled or row.values for row in rows)
            table.add_row(outcome, str(len(rows)), f"{values:,}", Text(how), Text(rows[0].name))
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH).print(table)

    def write(self, path: Path) -> Path:
        """Write a row a tensor as CSV.

        Raises:
            InputError: the file cannot be written.
        """
        return write_csv([asdict(row) for row in self.rows], path)
