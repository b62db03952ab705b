"""What went wrong in a batch whose other patients went on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from medseg_ext.errors import InputError, print_error


class NothingLeftError(RuntimeError):
    """Every patient of a batch failed; each has had its line."""


class Failures:
    """Print each failure as it comes, remember it, and tell the exit status in the end.

    Args:
        errors: those there are already. silent: do not print these, as another process does.
    """

    def __init__(self, errors: Iterable[InputError] = (), silent: bool = False) -> None:
        self._errors: list[InputError] = []
        self.patients: set[str] = set()
        for error in errors:
            self._record(error, getattr(error, "patient", ""))
            if not silent:
                print_error(error)

    def add(self, error: InputError, patient: str = "") -> None:
        """Record and print one failure."""
        self._record(error, patient)
        print_error(error)
        _forget_frames(error)

    def _record(self, error: InputError, patient: str) -> None:
        self._errors.append(error)
        if patient:
            self.patients.add(patient)

    def __iter__(self) -> Iterator[InputError]:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what an error's traceback holds: all volumes of a patient, as long as the error is remembered."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
