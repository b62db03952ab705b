"""From an evaluator's patients to files a person reads."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medseg_ext.errors import as_input_error, escaped
from medseg_ext.files import write_atomically
from medseg_ext.metrics.patient import Row
from medseg_ext.metrics.volumes import as_array
from medseg_ext.processes import as_first_process, gather_objects, is_first_process
from medseg_ext.reports.earlier import OVERLAYS, PAGE, remove_report
from medseg_ext.reports.html import StudyPages
from medseg_ext.reports.measures import LesionMeasures, StudyArrays, StudyMeasures
from medseg_ext.reports.notes import CaseNotes
from medseg_ext.reports.overlays import FileNames, worst_median_best
from medseg_ext.reports.summary import Picture, write_summary
from medseg_ext.reports.tables import write_csv, write_json
from medseg_ext.workflow.failures import Failures

#: A patient's row, and what its picture is drawn from, which depends on the measures.
_Patient = tuple[Row, Any]


@dataclass(frozen=True)
class _Drawn:
    """A picture that was drawn already, in place of what it would be drawn from."""

    patient: str
    caption: str
    path: Path


class StudyReportHandler:
    """Measure every patient an evaluator yields; at the end write the tables, the pictures and the page.

    Attach it to a MONAI evaluator that yields whole patients, after the post-processing that makes ``pred`` binary.  Of
    each patient it keeps a row of numbers and a few compressed slices.

    With a truth it writes ``metrics.csv``, ``metrics.json``, ``overlays/`` of the worst, median and best patient by
    Dice, and ``summary.html``.  Patients without a truth get areas or volumes; where no patient has one the tables are
    ``measurements.csv`` and ``measurements.json``, and every patient has its picture.
    No patient, no file.  Under several processes the first one gathers, by the patient's name, and writes.  What an
    earlier run's report left in the folder is removed at the start.

    Args:
        output_dir: the folder for all of it; made when missing.
        image_key: original image (C, H, W, D), not normalised, in the engine's output or batch.
        label_key: truth (1, H, W, D), or (R, H, W, D) of several regions, binary; may be missing or None.
        prob_key: probability, of the prediction's shape; may be missing.
        pred_key: prediction, of the truth's shape, binary.
        patient_key: the patient's name.
        spacing_key: (row, column, slice) in mm; may be missing or None.
        flair_channel: the channel drawn, where no ``measures`` are given.
        overlays: draw pictures: of the three patients, or of ``"all"`` of them.
        summary: write ``summary.html``.
        title: heading of the page and of the printed table.
        provenance: text by name that goes into the JSON and onto the page, see :func:`medseg_ext.reports.provenance`.
        errors: failures to list on the page, read at the end, so it may fill while the engine runs. Those whose names
            are in its attribute ``patients``, where it has one, are left out of all the rest: a patient whose mask
            could not be written has failed, however well it was measured. To :class:`~medseg_ext.workflow.Failures`
            whoever cannot be measured is added, where otherwise the first such error is raised.
        note: a sentence below the page's heading.
        measures: what is measured and drawn of a patient; :class:`~medseg_ext.reports.LesionMeasures` when None, and
            :class:`~medseg_ext.reports.RegionMeasures` for the regions of a tumour.
        records: where each patient's row and picture are noted at once, as part ``report``; None for nowhere.
        pages: writes a page for each patient at once, to which the summary links; None for no pages.
        studies: all patients of the run, each with its name as ``patient``: with ``records`` the report is of those
            among them that are noted, also by an earlier start.

    Raises:
        ValueError: while running, when a patient lacks the image or the prediction, or shapes do not fit.
        InputError: while running, when a file cannot be written.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        image_key: str = "image",
        label_key: str = "label",
        prob_key: str = "prob",
        pred_key: str = "pred",
        patient_key: str = "patient",
        spacing_key: str = "spacing",
        flair_channel: int = 1,
        overlays: bool | str = True,
        summary: bool = True,
        title: str = "Segmentation report",
        provenance: Mapping[str, Any] | None = None,
        errors: Iterable[BaseException | str] = (),
        note: str = "",
        measures: StudyMeasures | None = None,
        records: CaseNotes | None = None,
        studies: Iterable[Any] = (),
        pages: StudyPages | None = None,
    ) -> None:
        if overlays not in {True, False, "all"}:
            raise ValueError(f"overlays: found {overlays!r}, allowed True, False or 'all'")
        self.output_dir = Path(output_dir)
        self.image_key, self.label_key, self.prob_key, self.pred_key = image_key, label_key, prob_key, pred_key
        self.patient_key, self.spacing_key = patient_key, spacing_key
        self.measures = LesionMeasures(flair_channel) if measures is None else measures
        self.overlays, self.summary = overlays, summary
        self.title, self.provenance, self.errors, self.note = title, dict(provenance or {}), errors, note
        self.records = records
        self._places = {study.patient: getattr(study, "place", study.patient) for study in studies}
        self.names = list(self._places)
        self.pages = pages
        self._patients: list[_Patient] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine | None = None) -> None:
        """Forget an earlier run, and remove its report: from now on it would tell of masks that are replaced."""
        self._patients.clear()
        # pages that an earlier start of the same run wrote stay; others must be gone before any process writes its own
        as_first_process(lambda: remove_report(self.output_dir, [self._page(row) for row, _ in self._noted()]))

    def collect(self, engine: Engine) -> None:
        """Measure the patients of one iteration."""
        for item in _items(engine.state.batch, engine.state.output):
            try:
                self.add(item)
            except Exception as error:
                if not isinstance(self.errors, Failures):
                    raise
                patient = self._name(item)
                place = self._places.get(patient, patient)
                self.errors.add(as_input_error(error, place, "a study that can be measured"), patient)

    def add(self, item: Mapping[str, Any]) -> Row:
        """Measure one patient.

        Args:
            item: its data under the keys named above.

        Returns:
            The row, ``patient`` first.
        """
        spacing = item.get(self.spacing_key)
        study = StudyArrays(
            patient=self._name(item),
            image=as_array(self._required(item, self.image_key)),
            pred=_volume(self._required(item, self.pred_key)),
            truth=_volume(item.get(self.label_key)),
            probability=_volume(item.get(self.prob_key)),
            spacing=None if spacing is None else tuple(float(step) for step in spacing),
        )
        row: Row = {"patient": study.patient} | self.measures.measure(study)
        snapshot = self.measures.snapshot(study, self.measures.caption(row)) if self.overlays else None
        if study.patient not in getattr(self.errors, "patients", ()):
            if self.pages is not None:
                self.pages.write(study, item[self.image_key], row, self.measures)
            if self.records is not None:
                snapshot = self._note(self.records, row, snapshot)
        self._patients.append((row, snapshot))
        return row

    def _note(self, records: CaseNotes, row: Row, snapshot: Any) -> _Drawn | None:
        """Write a patient's picture and, last, its row: where that is, the patient is done."""
        patient = row["patient"]
        if self.pages is not None:
            records.write("page", patient, self.pages.path(patient).name)
        drawn = None
        if snapshot is not None:
            drawn = _Drawn(patient, snapshot.caption, records.path("report", patient, ".png"))
            self.measures.draw(snapshot, drawn.path)
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
        records.write("report", patient, {"row": plain, "caption": None if drawn is None else drawn.caption})
        return drawn

    def _page(self, row: Row) -> str | None:
        return None if self.pages is None else self.pages.path(row["patient"]).name

    def _noted(self) -> list[_Patient]:
        """What an earlier start of the run noted, and this one."""
        if self.records is None or not is_first_process():
            return []
        found: list[_Patient] = []
        for patient, note in self.records.read("report", self.names).items():
            caption = note["caption"]
            path = self.records.path("report", patient, ".png")
            found.append((note["row"], None if caption is None else _Drawn(patient, caption, path)))
        return found

    def write(self, engine: Engine | None = None) -> None:
        """Write everything and print the aggregate and where it lies."""
        patients, errors = self._gathered([*self._noted(), *self._patients])
        if not patients or not is_first_process():
            return
        patients.sort(key=lambda patient: _natural(patient[0]["patient"]))
        rows = [row for row, _ in patients]
        aggregate = self.measures.summarise(rows)
        stem = "metrics" if aggregate["scored"] else "measurements"
        write_csv(rows, self.output_dir / f"{stem}.csv")
        pictures = self._draw(patients)
        content = {
            **aggregate,
            "protocols": self.measures.protocols(aggregate),
            "provenance": self.provenance,
            "pictures": [picture.path.relative_to(self.output_dir).as_posix() for picture in pictures],
        }
        pages = {} if self.pages is None else {row["patient"]: self.pages.path(row["patient"]) for row in rows}
        if pages:
            content["pages"] = [path.name for path in pages.values()]
        write_json(content, self.output_dir / f"{stem}.json")
        last = self.output_dir / f"{stem}.json"
        if self.summary:
            last = write_summary(
                self.output_dir / PAGE,
                title=self.title,
                rows=rows,
                aggregate=aggregate,
                pictures=pictures,
                provenance=self.provenance,
                errors=errors,
                note=self.note,
                measures=self.measures,
                pages=pages,
            )
        _print_table(self.title, len(rows), *self.measures.printed(aggregate))
        print(escaped(last.resolve()), flush=True)

    def _gathered(self, patients: list[_Patient]) -> tuple[list[_Patient], list[str]]:
        """Patients that failed in no process, each once, and the errors of all processes."""
        mine = (patients, set(getattr(self.errors, "patients", ())), [str(error) for error in self.errors])
        everybody = gather_objects(mine)
        by_name = {row["patient"]: (row, snapshot) for part, _, _ in everybody for row, snapshot in part}
        failed = set().union(*(names for _, names, _ in everybody))
        errors = dict.fromkeys(error for _, _, part in everybody for error in part)
        return [patient for name, patient in by_name.items() if name not in failed], list(errors)

    def _draw(self, patients: list[_Patient]) -> list[Picture]:
        snapshots = [snapshot for _, snapshot in patients]
        scores = [self.measures.score(row) for row, _ in patients]
        roles = {index: role for role, index in worst_median_best(scores).items()}
        chosen = list(roles)
        if self.overlays == "all" or not roles:
            chosen += [index for index in range(len(patients)) if index not in roles]
        names = FileNames()
        pictures = []
        for index in chosen:
            snapshot = snapshots[index]
            if snapshot is None:
                continue
            role, caption = roles.get(index, ""), f"{snapshot.patient}: {snapshot.caption}"
            path = self.output_dir / OVERLAYS / f"{names(snapshot.patient, role)}.png"
            if isinstance(snapshot, _Drawn):
                write_atomically(path, snapshot.path.read_bytes())
            else:
                self.measures.draw(snapshot, path)
            pictures.append(Picture(path, f"{role.capitalize()} patient, {caption}" if role else caption))
        return pictures

    def _required(self, item: Mapping[str, Any], key: str) -> Any:
        if item.get(key) is None:
            raise ValueError(f"{key}: found none among {', '.join(sorted(map(str, item)))}, allowed an array")
        return item[key]

    def _name(self, item: Mapping[str, Any]) -> str:
        name = item.get(self.patient_key)
        if isinstance(name, (list, tuple)) and len(name) == 1:  # as a collated batch of one leaves it
            name = name[0]
        return f"patient_{len(self._patients) + 1}" if name is None else str(name)


def _items(batch: Any, output: Any) -> Iterator[dict[str, Any]]:
    """One mapping a patient, of batch and output together; the output counts where both have a key."""
    if isinstance(output, Mapping):
        output = [output]
    if isinstance(batch, Mapping) or batch is None:
        batch = [batch]
    for index, one in enumerate(output):
        beside = batch[index] if index < len(batch) else None
        yield {**(beside if isinstance(beside, Mapping) else {}), **one}


def _volume(array: Any) -> Any:
    """(1, H, W, D) as (H, W, D)."""
    if array is None:
        return None
    volume = as_array(array)
    return volume[0] if volume.ndim == 4 and volume.shape[0] == 1 else volume


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort ``p2`` before ``p10``."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]


def _print_table(title: str, count: int, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{title}: {count} patient{'' if count == 1 else 's'}"), title_justify="left")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for label, *cells in lines:
        table.add_row(Text(label), *cells)  # as text, or the unit's brackets are taken for markup
    Console(file=sys.stdout).print(table)
