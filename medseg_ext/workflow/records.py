"""What a batch has finished, so that the same command does the rest only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import check_name, read_json, sha256, write_atomically
from medseg_ext.layouts import Study
from medseg_ext.processes import as_first_process, is_first_process
from medseg_ext.workflow.run import one_line_errors

#: Where a study's results lie in an output folder; the study is done when all of them are there.
Outputs = Callable[[Study, Path], Sequence[Path]]


class CaseRecords:
    """A folder in which a batch notes, a file a case and part, what it has finished.

    A case is done when its results are there, which are written whole or not at all, and each part is noted: what is
    computed of a case beside its results, as its row of the metrics, has to outlive the process too. Results made with
    other settings or weights are not taken for this run's.

    Args:
        folder: of the notes, in the output folder.
        results_dir: where the results of the cases lie.
        outputs: which they are.
        parts: names of what has to be noted of each case.
        settings: what makes this run the one it is, by name.
        weights: file whose checksum belongs to that.

    Raises:
        SystemExit: after one line, where the folder is of a run with other settings, or cannot be written.
    """

    @one_line_errors
    def __init__(
        self,
        folder: str | Path,
        results_dir: str | Path,
        outputs: Outputs,
        parts: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.results_dir = Path(results_dir)
        self.outputs = outputs
        self.parts = list(parts)
        known = dict(settings or {})
        if weights is not None:
            known["weights"] = sha256(weights) if Path(weights).is_file() else None
        # as JSON has them: a tuple and the list it comes back as are the same setting
        self.settings: dict[str, Any] = json.loads(json.dumps(known, default=str))
        self._check_settings()

    def _check_settings(self) -> None:
        path = self.folder / "settings.json"
        # the first process alone looks, or another might look after it wrote
        earlier = as_first_process(lambda: read_json(path, "the settings of a run") if path.exists() else None)
        if earlier is None:
            if is_first_process():
                write_atomically(path, json.dumps(self.settings, indent=2) + "\n")
            return
        if not isinstance(earlier, dict):
            raise InputError(path, "no settings of a run", "what an earlier start of this run wrote")
        names = [name for name in sorted({*earlier, *self.settings}) if earlier.get(name) != self.settings.get(name)]
        if names:
            changes = "; ".join(f"{name} {earlier.get(name)} instead of {self.settings.get(name)}" for name in names)
            raise InputError(
                path, f"results of other settings ({changes})", "those of this run, or another output folder"
            )

    def path(self, part: str, patient: str, suffix: str = ".json") -> Path:
        """Where a part of a case is noted, or what belongs to it.

        Raises:
            InputError: the case's name leads elsewhere.
        """
        return self.folder / part / f"{check_name(patient, self.folder)}{suffix}"

    def write(self, part: str, patient: str, content: Any) -> None:
        """Note a part of a case.

        Args:
            part: its name. patient: the case. content: anything that JSON knows, NaN too.

        Raises:
            InputError: it cannot be written.
        """
        write_atomically(self.path(part, patient), json.dumps(content))

    def read(self, part: str, patients: Sequence[str]) -> dict[str, Any]:
        """A part of those cases that have it noted, by case."""
        paths = {patient: self.path(part, patient) for patient in patients}
        return {patient: read_json(path, "a case's note") for patient, path in paths.items() if path.exists()}

    def done(self, studies: Sequence[Study]) -> set[str]:
        """The cases that are done; what the first process sees counts for all."""
        return as_first_process(lambda: {study.patient for study in studies if self._is_done(study)})

    def _is_done(self, study: Study) -> bool:
        noted = (self.path(part, study.patient) for part in self.parts)
        return all(path.exists() for path in (*self.outputs(study, self.results_dir), *noted))
