import csv
import json

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from test_summary import Balance

from medseg_ext.metrics import region_metrics
from medseg_ext.reports import LesionMeasures, RegionMeasures, StudyReportHandler


@pytest.fixture
def items(tumour):
    def make(count, *, truth=True):
        for number in range(count):
            image, pred, mask = tumour(shift=2 * number)
            item = {
                "image": MetaTensor(torch.from_numpy(image)),
                "pred": MetaTensor(torch.from_numpy(pred).float()),
                "prob": torch.from_numpy(pred) * 0.9,
                "patient": f"p{number}",
                "spacing": torch.tensor([1.0, 1.0, 2.0]),
            }
            if truth:
                item["label"] = torch.from_numpy(mask)
            yield item

    return make


def run(handler, patients):
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([[patient] for patient in patients])


def page_of(folder):
    page = (folder / "summary.html").read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    return page


def test_files_of_an_evaluation(items, tmp_path, capsys):
    run(StudyReportHandler(tmp_path, measures=RegionMeasures(), title="Regions"), items(3))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "metrics.csv",
        "metrics.json",
        "overlays/best_p0.png",
        "overlays/median_p1.png",
        "overlays/worst_p2.png",
        "summary.html",
    ]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    item = list(items(3))[1]
    expected = region_metrics(item["pred"], item["label"], item["prob"], (1, 1, 2), item["image"])
    assert list(rows[1]) == ["patient", *expected]
    for name, value in expected.items():
        assert float(rows[1][name]) == pytest.approx(value, abs=1e-6)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["patients"] == content["dice"]["tc"]["n"] == 3
    assert set(content["hd95_mm"]) == {"tc", "wt", "et"}
    assert set(content["mean_dice"]) == {"mean", "median", "ci95", "n"}
    assert content["empty_truth"] == {"tc": 0, "wt": 0, "et": 0}
    assert content["predicted_volumes_ml"]["p0"]["wt"] == pytest.approx(float(rows[0]["volume_ml_wt"]))
    assert set(content["protocols"]) >= {"mean_dice", "dice", "lesionwise_dice", "nsd_1mm", "dice_where_present"}
    page = page_of(tmp_path)
    for text in ("Mean Dice", "Lesion-wise Dice", '<td class="region">WT</td>', 'colspan="3"', "Best patient, p0"):
        assert text in page
    assert page.count("data:image/png") == 3
    printed = capsys.readouterr().out
    assert "Regions: 3 patients" in printed
    assert "HD95 [mm]" in printed


def test_without_truth(items, tmp_path):
    run(StudyReportHandler(tmp_path, measures=RegionMeasures()), items(2, truth=False))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert names == ["measurements.csv", "measurements.json", "overlays/p0.png", "overlays/p1.png", "summary.html"]
    header = (tmp_path / "measurements.csv").read_text().splitlines()[0]
    assert header == "patient,predicted_volume_ml_tc,predicted_volume_ml_wt,predicted_volume_ml_et"
    content = json.loads((tmp_path / "measurements.json").read_text())
    assert content["predicted_volumes_ml"]["p1"]["tc"] > 0
    assert content["predicted_volume_ml"]["wt"]["n"] == 2
    assert "Dice" not in page_of(tmp_path)


def test_some_without_truth(items, tmp_path):
    patients = [*items(1), *({**item, "patient": "x"} for item in items(1, truth=False))]
    run(StudyReportHandler(tmp_path, measures=RegionMeasures(), overlays="all"), patients)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["patients"], content["scored"], content["dice"]["wt"]["n"]) == (2, 1, 1)
    assert content["predicted_volume_ml"]["wt"]["n"] == 2
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["worst_p0.png", "x.png"]
    assert "–" in page_of(tmp_path)


def test_named_in_a_config(items, tmp_path):
    config = ConfigParser(
        {
            "channel_order": ["t1", "t1ce", "t2", "flair"],
            "handler": {
                "_target_": "medseg_ext.reports.StudyReportHandler",
                "output_dir": str(tmp_path),
                "measures": {
                    "_target_": "medseg_ext.reports.RegionMeasures",
                    "channel_order": "@channel_order",
                    "tolerances": [0.5, 1.0],
                },
                "overlays": False,
                "summary": False,
            },
        }
    )
    run(config.get_parsed_content("handler"), items(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "metrics.json"]
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["nsd_0.5mm"]["tc"]["mean"] <= content["nsd_1mm"]["tc"]["mean"]


def test_spacing_is_needed(items, tmp_path):
    item = next(items(1))
    item["spacing"] = None
    with pytest.raises(ValueError, match="spacing: found"):
        StudyReportHandler(tmp_path, measures=RegionMeasures()).add(item)


def test_a_task_of_its_own(tumour, tmp_path):
    """Whoever measures something else derives from what is there."""

    class Smallest(LesionMeasures):
        def score(self, row):
            return -row["area_px"]

    patients = []
    for name, region in (("large", 1), ("small", 2)):
        image, pred, truth = tumour()
        patients.append({"image": image, "pred": pred[region], "label": truth[region], "patient": name})
    run(StudyReportHandler(tmp_path, measures=Smallest(flair_channel=3), summary=False), patients)
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["best_small.png", "worst_large.png"]
