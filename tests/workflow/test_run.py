"""Engines that end in one line: bad input, wrapped or not, nothing left, an interrupt."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.transforms import Compose
from tqdm import tqdm

from medseg_ext.errors import InputError, print_error
from medseg_ext.workflow import Failures, PatientStream, run_engine
from medseg_ext.workflow.run import one_line_errors, one_line_interrupts


@pytest.fixture(autouse=True)
def log_to_stderr():
    """As the bundles' logging does; the handler has to be made once stderr is captured."""
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


BUGS: dict[str, BaseException] = {"bug": ZeroDivisionError()}


def read(item: dict) -> dict:
    if item["patient"].startswith("bad"):
        raise InputError(item["patient"], "rubbish", "an image")
    if item["patient"] in BUGS:
        raise BUGS[item["patient"]]
    return {"image": torch.ones(1, 4, 4, 2), "label": torch.ones(1, 4, 4, 2), "patient": item["patient"]}


def evaluator(names: list[str], failures: Failures | None, post=None) -> SupervisedEvaluator:
    stream = PatientStream([{"patient": name} for name in names], Compose([Compose([read])]), failures, progress=False)
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(stream, batch_size=1),
        network=torch.nn.Identity(),
        postprocessing=post,
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        val_handlers=[StatsHandler(iteration_log=False)],
    )


def exit_of(engine, failures=()) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_engine(engine, failures)
    return caught.value.code


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    engine = evaluator(["a", "b"], Failures())
    run_engine(engine)
    assert engine.state.iteration == 2
    assert "error" not in capsys.readouterr().err


def test_the_rest_of_the_batch_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures()
    engine = evaluator(["a", "bad1", "b", "bad2"], failures)
    assert exit_of(engine, failures) == 1
    assert engine.state.iteration == 2
    assert failures.patients == {"bad1", "bad2"}
    lines = [line for line in capsys.readouterr().err.splitlines() if "bad" in line]
    assert lines == [f"error: bad{i}: found rubbish, allowed an image" for i in (1, 2)]


def test_nothing_left(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures()
    assert exit_of(evaluator(["bad1", "bad2"], failures), failures) == 1
    assert capsys.readouterr().err.splitlines() == [f"error: bad{i}: found rubbish, allowed an image" for i in (1, 2)]


def full(data):
    raise InputError("out/p", "No space left on device", "room")


def test_a_patient_who_cannot_be_segmented(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are scored, whatever handlers there are."""

    def process(data: dict) -> dict:
        if data["patient"] == "large":
            raise RuntimeError("could not create a primitive")
        if data["patient"] == "full":
            return full(data)
        return data

    failures = Failures()
    engine = evaluator(["large", "a", "full"], failures, Compose([process]))
    assert exit_of(engine, failures) == 1
    assert failures.patients == {"large", "full"}
    assert engine.state.metrics["dice"] == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")] == [
        "error: large: found more than the memory holds (could not create a primitive), allowed what fits into memory",
        "error: full: found No space left on device, allowed room",
    ]
    assert all(error.__traceback__ is None for error in failures)  # which would hold the volumes


def test_no_patient_can_be_segmented(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures()
    assert exit_of(evaluator(["bad1", "a"], failures, Compose([full])), failures) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: bad1: found rubbish, allowed an image",
        "error: a: found No space left on device, allowed room",
    ]


def test_an_error_inside_an_engine_that_records_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(evaluator(["a", "b"], None, Compose([full]))) == 1
    assert capsys.readouterr().err.splitlines() == ["error: out/p: found No space left on device, allowed room"]


def test_an_error_inside_the_validation_of_a_training_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    network = torch.nn.Conv3d(1, 1, 1)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset([read({"patient": "a"})])),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=torch.nn.MSELoss(),
        train_handlers=[
            ValidationHandler(1, evaluator(["a"], Failures(), Compose([full]))),
            StatsHandler(tag_name="loss", iteration_log=False, output_transform=from_engine(["loss"], first=True)),
        ],
    )
    assert exit_of(trainer) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == ["error: out/p: found No space left on device, allowed room"]


def test_a_traceback_where_it_is_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_TRACEBACK", "1")
    failures = Failures()
    assert exit_of(evaluator(["bad1", "a"], failures), failures) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "error: bad1: found rubbish, allowed an image" in text.splitlines()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (MemoryError, "found more than the memory holds (too much), allowed what fits into memory"),
        (RecursionError, "found what cannot be processed (RecursionError: too much), allowed "),
        (KeyError, "found what cannot be processed (KeyError: 'too much'), allowed "),
        (OSError, "found what cannot be processed (OSError: too much), allowed "),
        (UnicodeError, "found what cannot be processed (UnicodeError: too much), allowed "),
    ],
)
def test_whatever_one_patient_raises_is_its_failure(
    kind: type[Exception], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUGS, "bug", kind("too much"))
    failures = Failures()
    engine = evaluator(["a", "bug", "b"], failures)
    assert exit_of(engine, failures) == 1
    assert (engine.state.iteration, failures.patients) == (2, {"bug"})
    text = capsys.readouterr().err
    (line,) = [line for line in text.splitlines() if "too much" in line]
    assert line.startswith(f"error: bug: {said}")
    assert "in read" not in text


def test_where_it_came_from_is_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_TRACEBACK", "1")
    failures = Failures()
    assert exit_of(evaluator(["bug", "a"], failures), failures) == 1
    text = capsys.readouterr().err
    assert "in read" in text
    assert "\nZeroDivisionError" in text


def test_without_a_list_of_failures_the_first_is_raised() -> None:
    with pytest.raises(RuntimeError, match="applying transform"):
        run_engine(evaluator(["bug"], None))


def test_an_interrupt_while_a_patient_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUGS, "bug", KeyboardInterrupt())
    assert exit_of(evaluator(["bug", "a"], Failures())) == 130
    assert capsys.readouterr().err.splitlines() == ["interrupted"]


def test_no_batch_to_train_on_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    network = torch.nn.Conv3d(1, 1, 1)
    loader = DataLoader(Dataset([read({"patient": "a"})]), batch_size=2, drop_last=True)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=torch.nn.MSELoss(),
    )
    assert exit_of(trainer) == 1
    assert capsys.readouterr().err.startswith("error: batch_size: found no whole batch in an epoch, allowed ")


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(data):
        raise KeyboardInterrupt

    assert exit_of(evaluator(["a"], Failures(), Compose([interrupt]))) == 130
    assert capsys.readouterr().err.splitlines() == ["interrupted"]


def test_the_log_is_as_before_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    exit_of(evaluator(["a"], None, Compose([full])))
    try:
        full(None)
    except InputError:
        logging.getLogger("elsewhere").error("still heard")
    assert "still heard" in caplog.text
    assert "terminating" not in caplog.text


def test_one_line_errors_lets_results_and_bugs_through() -> None:
    assert one_line_errors(lambda x: 2 * x)(3) == 6
    with pytest.raises(ZeroDivisionError):
        one_line_errors(lambda: 1 // 0)()


def test_errors_begin_their_line_beside_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in tqdm(range(3), mininterval=0):
        print_error(InputError("f", "two\nlines", "one"))
    raw = capfd.readouterr().err
    assert raw.count("\nerror: f: found two lines, allowed one\n") == 3


def test_an_interrupt_before_the_engine_runs(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """In our own code, and, by the hook, in that of others."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        one_line_errors(interrupted)()
    assert end.value.code == 130
    monkeypatch.setattr(sys, "excepthook", lambda *error: print("another error", file=sys.stderr))
    one_line_interrupts()
    with pytest.raises(SystemExit) as end:
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert end.value.code == 130
    sys.excepthook(ValueError, ValueError(), None)
    assert capsys.readouterr().err.splitlines() == ["interrupted", "interrupted", "another error"]
