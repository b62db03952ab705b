"""A MONAI metric over the cases of all processes, each counted once whoever scored it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction

from medseg_ext.processes import gather_objects
from medseg_ext.reports.notes import CaseNotes


class MetricByCase(IgniteMetricHandler):
    """Handler of a MONAI metric whose values are gathered by the name of the case.

    MONAI's own handlers put the processes' values one after the other, and a process that has none takes no part, for
    which the others wait for ever. Here shares may be uneven or empty, a case that two processes scored counts once,
    and the mean, taken in the order of names, does not depend on how many processes there are.

    Args:
        metric_fn: gives a row of values a case, such as ``monai.metrics.DiceMetric``; its ``reduction`` is used.
        output_transform: as MONAI's handlers have it, ``monai.handlers.from_engine(["pred", "label"])``.
        patient_key: the case's name in the engine's batch.
        records: where each case's values are noted at once, as part ``metric``; None for nowhere.
        studies: with ``records``, all cases of the run, each with its name as ``patient``: those noted by an earlier
            start count too.

    The value is NaN without any case.
    """

    def __init__(
        self,
        metric_fn: CumulativeIterationMetric,
        output_transform: Callable,
        patient_key: str = "patient",
        records: CaseNotes | None = None,
        studies: Iterable[Any] = (),
    ) -> None:
        self.patient_key = patient_key
        self.records, self.names = records, [study.patient for study in studies]
        self._rows: dict[str, list[float]] = {}
        self._cases: list[str] = []
        super().__init__(metric_fn, output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all cases."""
        self._rows = {}

    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of one iteration."""
        batch: Any = engine.state.batch
        self._cases = [str(item[self.patient_key]) for item in batch]
        super().iteration_completed(engine)

    @reinit__is_reduced
    def update(self, output: Sequence[torch.Tensor]) -> None:
        """Score cases.

        Args:
            output: predictions and truths, as the metric takes them.
        """
        predicted, truth = output
        values = torch.as_tensor(self.metric_fn(predicted, truth)).double().cpu()
        self.metric_fn.reset()  # it would keep all values, to gather them by itself
        for case, row in zip(self._cases, values.tolist(), strict=True):
            self._rows[case] = row
            if self.records is not None:
                self.records.write("metric", case, row)

    def by_case(self) -> dict[str, list[float]]:
        """The values of all cases of all processes, in the order of their names; each process has to call."""
        noted: Mapping[str, list[float]] = self.records.read("metric", self.names) if self.records is not None else {}
        everybody = gather_objects({**noted, **self._rows})
        return dict(sorted({case: row for rows in everybody for case, row in rows.items()}.items()))

    def compute(self) -> Any:
        """The metric over all cases."""
        rows = self.by_case()
        self._is_reduced = True
        if self._engine is not None and self._name is not None:
            self._engine.state.metric_details[self._name] = rows  # type: ignore[attr-defined]
        if not rows:
            return float("nan")
        mean, _ = do_metric_reduction(torch.tensor(list(rows.values())), self.metric_fn.reduction)  # type: ignore[attr-defined]
        return mean.squeeze().tolist()
