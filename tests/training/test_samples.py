"""Training samples: a number decides a sample, ranks and epochs share the numbers out, lesions are drawn as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_patients import tiny_head
from torch.utils.data import DataLoader

from medseg_ext.errors import InputError
from medseg_ext.training import CountingSampler, LesionSliceDataset, PatientCache, SetSamplerEpoch
from medseg_ext.transforms import NormalizeHead, SliceAugmentation

SIZE = (24, 24)


def load(seed: int) -> dict[str, torch.Tensor]:
    """Patient 9 has no lesion."""
    image, mask = tiny_head(seed, (32, 30, 5))
    if seed == 9:
        mask[:] = 0
    return {
        "image": torch.from_numpy(NormalizeHead()(image.astype(np.float32))),
        "label": torch.from_numpy(mask[None].astype(np.float32)),
    }


def dataset(patients: tuple[int, ...] = (0, 1, 9), **options) -> LesionSliceDataset:
    options = {"augmentation": replace(SliceAugmentation(), size=SIZE), "progress": False} | options
    return LesionSliceDataset(patients, load, **options)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def test_shapes() -> None:
    sample = dataset(neighbours=2)[0]
    assert sample["image"].shape == (15, *SIZE)
    assert sample["label"].shape == (1, *SIZE)
    assert sample["image"].dtype == sample["label"].dtype == torch.float32


def test_a_number_is_a_sample_in_any_order() -> None:
    first, again = dataset(), dataset(workers=1)
    wanted = [first[i] for i in range(12)]
    assert all(same(again[i], wanted[i]) for i in reversed(range(12)))
    other = dataset(seed=1)
    assert not any(same(other[i], wanted[i]) for i in range(12))
    assert len({sample["image"].sum().item() for sample in wanted}) == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int) -> None:
    data = dataset()
    alone, shared = (
        list(DataLoader(data, batch_size=4, sampler=CountingSampler(12), num_workers=n)) for n in (0, workers)
    )
    assert len(alone) == len(shared) == 3
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_a_lesion_free_patient_gives_samples() -> None:
    data = dataset((9,), lesion_share=1.0)
    assert all(data[i]["label"].sum() == 0 for i in range(10))


def slice_of(data: LesionSliceDataset) -> LesionSliceDataset:
    """The same data set, whose image holds the number of the slice drawn."""
    for patient in data.patients:
        depth = len(patient["image"])
        patient["image"] = torch.arange(1.0, depth + 1).view(-1, 1, 1, 1).expand(patient["image"].shape).half()
        patient["air"] = torch.zeros(3)
    return data


NOTHING = SliceAugmentation(SIZE, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_lesions(share: float) -> None:
    """One slice of five holds lesion, so (1 - share) / 5 of the samples show it besides the share itself."""
    data = slice_of(dataset((0,), augmentation=NOTHING, lesion_share=share, neighbours=0))
    drawn = np.array([int(data[i]["image"].max()) for i in range(400)])
    lesion = 1 + 5 // 2
    expected = share + (1 - share) / 5
    assert abs((drawn == lesion).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 400) + 1e-9
    if share < 1:
        assert set(drawn) == {1, 2, 3, 4, 5}


def test_patients_are_drawn_alike_whatever_their_depth() -> None:
    data = dataset((0, 1), augmentation=NOTHING, neighbours=0)
    for value, patient in enumerate(data.patients):
        patient["image"] = torch.full_like(patient["image"], value + 1.0)
        patient["air"] = torch.zeros(3)
    data.patients[1] = {key: _tripled(key, value) for key, value in data.patients[1].items()}
    drawn = np.array([int(data[i]["image"].max()) for i in range(400)])
    assert abs((drawn == 1).mean() - 0.5) < 0.1


def _tripled(key: str, value):
    if key in {"image", "label"}:
        return value.repeat(3, 1, 1, 1)
    return {"weights": np.tile(value, 3), "head": np.tile(value, 3) / 3}[key] if key in {"weights", "head"} else value


def test_the_middle_neighbour_is_the_slice_of_the_label() -> None:
    data = slice_of(dataset((0,), augmentation=NOTHING, lesion_share=1.0, neighbours=1))
    image = data[0]["image"].view(3, 3, *SIZE)
    assert [image[k].unique().tolist() for k in range(3)] == [[2.0], [3.0], [4.0]]
    assert data[0]["label"].sum() > 0


@pytest.mark.parametrize(("samples", "world"), [(12, 1), (12, 3), (13, 4)])
def test_ranks_share_an_epoch_out(samples: int, world: int) -> None:
    samplers = [CountingSampler(samples, rank, world) for rank in range(world)]
    for epoch in (0, 1, 5):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        numbers = [list(sampler) for sampler in samplers]
        assert {len(part) for part in numbers} == {samples // world}
        assert [len(sampler) for sampler in samplers] == [samples // world] * world
        together = sorted(number for part in numbers for number in part)
        assert together == list(range(epoch * samples, epoch * samples + samples // world * world))
    assert list(CountingSampler(4, 1, 2)) == [1, 3]


def test_the_epoch_is_set_before_its_samples_are_drawn() -> None:
    from ignite.engine import Engine

    seen: list[int] = []
    sampler = CountingSampler(3)
    engine = Engine(lambda _, batch: seen.append(int(batch)))
    SetSamplerEpoch(sampler).attach(engine)
    engine.run(DataLoader(range(100), sampler=sampler), max_epochs=3)  # type: ignore[arg-type]
    assert seen == list(range(9))


def load_some(name: str) -> dict[str, torch.Tensor]:
    if name.startswith("bad"):
        raise RuntimeError("wrapped") from InputError(name, "rubbish", "an image")
    return load(0)


@pytest.mark.parametrize("kind", [LesionSliceDataset, PatientCache])
def test_each_bad_patient_has_its_line_and_training_ends(kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        kind(["good", "bad1", "good", "bad2"], load_some, progress=False)
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: bad1: found rubbish, allowed an image",
        "error: bad2: found rubbish, allowed an image",
    ]


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        PatientCache([0], lambda item: 1 // item, progress=False)


def test_the_cache_reads_once() -> None:
    read: list[int] = []
    cache = PatientCache([3, 4], lambda item: read.append(item) or {"item": item}, progress=False)
    assert [cache[i] for i in (1, 0, 1)] == [{"item": 4}, {"item": 3}, {"item": 4}]
    assert sorted(read) == [3, 4]
