import csv
import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose, CopyItemsd, EnsureChannelFirstd, Lambdad

from medseg_ext.reports import StudyReportHandler
from medseg_ext.reports import handler as handler_module
from medseg_ext.reports.handler import _natural
from medseg_ext.workflow import Failures


@pytest.fixture
def items(head):
    def make(count, *, truth=True):
        for number in range(count):
            image, mask = head()
            pred = np.roll(mask, number, 0)
            item = {
                "image": MetaTensor(torch.from_numpy(image)),
                "pred": torch.from_numpy(pred[None]),
                "prob": torch.from_numpy(pred[None].astype(np.float32)),
                "patient": f"p{number}",
            }
            if truth:
                item["label"] = torch.from_numpy(mask[None].astype(np.uint8))
            yield item

    return make


def run(handler, patients):
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([[patient] for patient in patients] or [[]])


def test_files_of_an_evaluation(items, tmp_path, capsys):
    failures = []
    handler = StudyReportHandler(tmp_path / "out", provenance={"bundle": "b 0.1.0"}, errors=failures, title="Phantoms")
    failures.append("p9.tif: found nothing, allowed an image")  # as happens while it runs
    run(handler, items(5))
    out = tmp_path / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "metrics.csv",
        "metrics.json",
        "overlays/best_p0.png",
        "overlays/median_p2.png",
        "overlays/worst_p4.png",
        "summary.html",
    ]
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["p0", "p1", "p2", "p3", "p4"]
    assert rows[0]["dice"] == "1.000000"
    assert list(rows[0])[:3] == ["patient", "dice", "dice_reference_protocol"]
    content = json.loads((out / "metrics.json").read_text())
    assert content["patients"] == content["dice"]["n"] == 5
    assert set(content["dice"]) == set(content["dice_reference_protocol"]) == {"mean", "median", "ci95", "n"}
    assert content["dice"]["mean"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-5)
    assert content["provenance"] == {"bundle": "b 0.1.0"}
    assert set(content["protocols"]) == set(rows[0]) - {"patient"}
    assert "p9.tif: found nothing" in (out / "summary.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "Phantoms: 5 patients" in printed
    assert "HD95 [px]" in printed
    assert printed.rstrip().splitlines()[-1] == str((out / "summary.html").resolve())


def test_twice_gives_the_same_tables(items, tmp_path):
    handler = StudyReportHandler(tmp_path, overlays=False, summary=False)
    run(handler, items(3))
    first = (tmp_path / "metrics.csv").read_bytes(), (tmp_path / "metrics.json").read_bytes()
    run(handler, items(3))
    assert ((tmp_path / "metrics.csv").read_bytes(), (tmp_path / "metrics.json").read_bytes()) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "metrics.json"]


def test_pictures_of_an_earlier_run_go(items, tmp_path):
    run(StudyReportHandler(tmp_path, summary=False), items(4))
    run(StudyReportHandler(tmp_path, summary=False), items(2))
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["best_p0.png", "worst_p1.png"]


def test_a_report_replaces_the_earlier_one(items, tmp_path):
    own = {"overlays/mine.png": "a picture of the user's", "masks/p9/p9_1_mask.tif": "a mask", "notes.txt": "notes"}
    for name, text in own.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    run(StudyReportHandler(tmp_path, overlays="all"), items(4))
    run(StudyReportHandler(tmp_path), items(1, truth=False))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert left == sorted([*own, "measurements.csv", "measurements.json", "overlays/p0.png", "summary.html"])
    run(StudyReportHandler(tmp_path), [])  # every patient failed: nothing is left that could pass for this run's
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == sorted(own)


def test_what_is_no_report_stays(items, tmp_path):
    (tmp_path / "metrics.json").write_text('{"pictures": ["../picture.png", "overlays/x.txt"]}')
    (tmp_path / "metrics.csv").write_text("of another program")
    (tmp_path / "picture.png").touch()
    run(StudyReportHandler(tmp_path, summary=False, overlays=False), items(1, truth=False))
    assert (tmp_path / "metrics.csv").read_text() == "of another program"
    (tmp_path / "metrics.json").write_text('{"protocols": {}, "pictures": ["../picture.png", "overlays/x.txt", 3]}')
    run(StudyReportHandler(tmp_path), [])
    assert (tmp_path / "picture.png").exists()


def test_names_that_make_the_same_file_name(items, tmp_path):
    names = ["a b", "a_b", "A b", "worst_a_b"]
    patients = [item | {"patient": name} for item, name in zip(items(4), names, strict=True)]
    run(StudyReportHandler(tmp_path, overlays="all"), patients)
    found = sorted(path.name for path in (tmp_path / "overlays").iterdir())
    assert len({name.casefold() for name in found}) == len(found) == 4
    assert sorted(json.loads((tmp_path / "metrics.json").read_text())["pictures"]) == [f"overlays/{x}" for x in found]


def test_pictures_of_all(items, tmp_path):
    run(StudyReportHandler(tmp_path, overlays="all", summary=False), items(4))
    names = sorted(path.name for path in (tmp_path / "overlays").iterdir())
    assert names == ["best_p0.png", "median_p2.png", "p1.png", "worst_p3.png"]


def test_without_truth(items, tmp_path):
    patients = [item | {"spacing": torch.tensor([1.0, 1.0, 4.0])} for item in items(2, truth=False)]
    run(StudyReportHandler(tmp_path), patients)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert names == ["measurements.csv", "measurements.json", "overlays/p0.png", "overlays/p1.png", "summary.html"]
    content = json.loads((tmp_path / "measurements.json").read_text())
    assert content["patients"] == 2
    assert content["predicted_volume_ml"]["mean"] > 0
    assert "Dice" not in (tmp_path / "summary.html").read_text(encoding="utf-8")


def test_no_patient_no_file(tmp_path, capsys):
    run(StudyReportHandler(tmp_path / "out"), [])
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == ""


def test_keys_from_the_batch(items, tmp_path):
    """As MONAI's evaluator has it: what post-processing adds lies in the output, the rest may lie in the batch."""
    item = next(items(1))
    engine = Engine(lambda engine, batch: [{"pred": batch[0]["pred"], "prob": batch[0]["prob"]}])
    handler = StudyReportHandler(tmp_path, overlays=False, summary=False, image_key="original")
    handler.attach(engine)
    batch = {"original": item["image"], "label": item["label"], "pred": item["pred"], "prob": item["prob"]}
    engine.run([[batch | {"patient": ["x"]}]])
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].startswith("x,1.000000")


def test_missing_prediction_is_named(items, tmp_path):
    item = next(items(1))
    del item["pred"]
    with pytest.raises(ValueError, match="pred: found none among image, label, patient, prob"):
        StudyReportHandler(tmp_path).add(item)


def test_who_cannot_be_measured_is_recorded(items, tmp_path, capsys):
    good, bad = items(2)
    bad["pred"] = bad["pred"][..., :-1]
    failures = Failures()
    handler = StudyReportHandler(tmp_path, overlays=False, summary=False, errors=failures)
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([[bad], [good]])
    assert failures.patients == {bad["patient"]}
    assert capsys.readouterr().err.startswith(f"error: {bad['patient']}: found what cannot be processed (ValueError: ")
    assert [line.split(",")[0] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]] == [good["patient"]]


def test_overlay_option_is_checked(tmp_path):
    with pytest.raises(ValueError, match="overlays: found 'some'"):
        StudyReportHandler(tmp_path, overlays="some")


def test_in_a_monai_evaluator_made_from_config(head, tmp_path):
    """A real evaluator: slices as batch, network thresholding FLAIR, decollated, handler named in the config."""
    image, truth = head()
    data = [{"image": image, "label": truth[None].astype(np.float32), "patient": f"c{n}"} for n in range(2)]
    preprocessing = Compose([EnsureChannelFirstd("image", channel_dim=0), CopyItemsd("image", names="original")])
    config = ConfigParser(
        {"handler": {"_target_": "medseg_ext.reports.StudyReportHandler", "output_dir": str(tmp_path),
                     "image_key": "original", "overlays": False, "summary": False}}
    )  # fmt: skip

    class Threshold(torch.nn.Module):
        def forward(self, volume):
            return ((volume[:, 1:2] - 140) / 10).sigmoid()

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data, preprocessing), batch_size=1),
        network=Threshold(),
        inferer=SimpleInferer(),
        postprocessing=Compose([CopyItemsd("pred", names="prob"), Lambdad("pred", lambda prob: prob > 0.5)]),
        val_handlers=[config.get_parsed_content("handler")],
    )
    evaluator.run()
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["patients"] == 2
    assert content["dice"]["mean"] > 0.95
    assert content["ece"]["n"] == 2
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].startswith("c0,")


def test_processes_are_gathered_on_the_first(items, tmp_path, monkeypatch):
    """The second one has p1, too, and p2, and a failure that both know."""
    others = StudyReportHandler(tmp_path, errors=["p8: bad", "p9: worse"])
    for item in list(items(3))[1:]:
        others.add(item)
    theirs = (others._patients, {"p9"}, ["p8: bad", "p9: worse"])
    monkeypatch.setattr(handler_module, "gather_objects", lambda mine: [mine, theirs])
    monkeypatch.setattr(handler_module, "is_first_process", lambda: True)
    run(StudyReportHandler(tmp_path / "first", errors=["p8: bad"]), items(2))
    rows = (tmp_path / "first" / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["p0", "p1", "p2"]
    page = (tmp_path / "first" / "summary.html").read_text(encoding="utf-8")
    assert page.count("p8: bad") == page.count("p9: worse") == 1
    monkeypatch.setattr(handler_module, "is_first_process", lambda: False)
    run(StudyReportHandler(tmp_path / "second"), items(1))
    assert not (tmp_path / "second").exists()


def test_names_sort_as_numbers():
    assert sorted(["p10", "p2", "10", "a", "9"], key=_natural) == ["9", "10", "a", "p2", "p10"]
