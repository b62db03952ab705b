import numpy as np
import pytest
import torch
from ignite.engine import Engine

from medseg_ext.reports import ExampleOverlays, example_overlay


@pytest.fixture
def item(head):
    image, truth = head()
    mask = torch.from_numpy(truth[None].astype(np.float32))
    return {"image": torch.from_numpy(image), "label": mask, "pred": mask.clone()}


def evaluate(handler, item, names):
    """Run an evaluator over patients that all look alike."""
    engine = Engine(lambda engine, batch: [item])
    handler.attach(engine)
    engine.run([[{"patient": name}] if name else [{}] for name in names])


def test_sinks_get_the_picture_of_each_of_the_first_patients(item):
    got = []
    handler = ExampleOverlays(flair_channel=1, patients=2)
    handler.sinks.append(lambda *picture: got.append(picture))
    for _ in range(2):  # the second validation begins with the first patient again
        evaluate(handler, item, ["b", "a", "c"])
    assert [(name, epoch) for name, _, epoch in got] == [("b", 1), ("a", 1)] * 2
    expected = example_overlay(item["image"][1][None], item["label"], item["pred"])
    for _, picture, _ in got:
        np.testing.assert_array_equal(picture, expected)


def test_patients_without_names_are_numbered(item):
    got = []
    handler = ExampleOverlays()
    handler.sinks.append(lambda *picture: got.append(picture[0]))
    evaluate(handler, item, [None, None])
    assert got == ["patient_1", "patient_2"]


def test_tensorboard_gets_the_pictures(item, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    handler = ExampleOverlays(log_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    evaluate(handler, item, ["a"])
    assert accumulator.EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == ["overlays/a"]


def test_one_of_several_regions(item):
    got = []
    handler = ExampleOverlays(region=1)
    handler.sinks.append(lambda name, picture, epoch: got.append(picture))
    empty = torch.zeros_like(item["label"])
    regions = item | {key: torch.cat([empty, item[key], empty]) for key in ("label", "pred")}
    evaluate(handler, regions, ["a"])
    evaluate(ExampleOverlays(region=1), regions | {"label": None}, ["a"])
    expected = example_overlay(item["image"][1][None], item["label"], item["pred"])
    np.testing.assert_array_equal(got[0], expected)
