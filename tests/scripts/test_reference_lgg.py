"""The baseline: network, loss, sampling and augmentation by hand, and a restart that changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference_lgg as reference
import torch
from PIL import Image

from medseg_ext.metrics import dice

SIZE = 16


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def volumes() -> list[reference.Volume]:
    """Two tiny patients with a bright square as tumour."""
    generator = np.random.default_rng(0)
    mask = np.zeros((4, SIZE, SIZE), np.uint8)
    mask[1:3, 4:10, 5:11] = 1
    images = [generator.normal(size=(4, 3, SIZE, SIZE)).astype(np.float32) + 2 * mask[:, None] for _ in range(2)]
    return [reference.Volume(f"patient_{number}", image, mask) for number, image in enumerate(images)]


def small_network() -> reference.ReferenceUNet:
    torch.manual_seed(0)
    return reference.ReferenceUNet(features=(4, 8, 8, 8, 8))


def training(volumes: list[reference.Volume], folder: Path, images: int) -> reference.ReferenceTraining:
    return reference.ReferenceTraining(
        volumes[:1], volumes[1:], folder, images=images, val_every=48, save_every=32, workers=0,
        precision=reference.Precision(bf16=False), network=small_network(),
    )  # fmt: skip


def test_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in reference.ReferenceUNet().parameters()) == 7_763_041


def test_network_returns_probabilities_of_the_input_s_size() -> None:
    with torch.inference_mode():
        output = small_network()(torch.randn(2, 3, 32, SIZE))
    assert output.shape == (2, 1, 32, SIZE)
    assert output.min() >= 0 and output.max() <= 1


def test_loss_by_hand() -> None:
    probabilities = torch.tensor([[[[0.5, 0.0], [1.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    truth = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]]])
    # Over the whole batch: overlap 0.5 + 1, sums 2 and 3.
    assert reference.batch_dice_loss(probabilities, truth).item() == pytest.approx(1 - (2 * 1.5 + 1) / (2 + 3 + 1))


def test_loss_of_two_empty_masks_is_zero() -> None:
    assert reference.batch_dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)).item() == 0


def test_slice_probabilities_by_hand() -> None:
    mask = np.zeros((4, 2, 2), np.uint8)
    mask[1] = [[1, 1], [1, 0]]
    mask[2] = [[1, 0], [0, 0]]
    # Areas 0 3 1 0, sum 4, of which a tenth is spread: (s + 0.1) / 4.4.
    expected = [0.1 / 4.4, 3.1 / 4.4, 1.1 / 4.4, 0.1 / 4.4]
    np.testing.assert_allclose(reference.slice_probabilities(mask), expected)
    np.testing.assert_allclose(reference.slice_probabilities(np.zeros((4, 2, 2))), 0.25)


def test_slices_are_drawn_with_these_probabilities(volumes: list[reference.Volume]) -> None:
    # Every slice holds its own number, so that the drawn ones can be counted.
    numbered = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], (4, 3, SIZE, SIZE))
    patients = [reference.Volume("numbered", numbered, volumes[0].mask)]
    samples = reference.RandomSlices(
        patients, 2000, augmentation=lambda image, mask, _: (torch.tensor(image[0, 0, 0]), torch.tensor(mask[0, 0]))
    )
    drawn = np.bincount([int(samples[index][0]) for index in range(2000)], minlength=4) / 2000
    np.testing.assert_allclose(drawn, reference.slice_probabilities(volumes[0].mask), atol=0.03)


def test_a_sample_depends_on_its_index_alone(volumes: list[reference.Volume]) -> None:
    first, second = reference.RandomSlices(volumes, 10), reference.RandomSlices(volumes, 99)
    _ = [second[index] for index in range(3)]
    assert torch.equal(first[7][0], second[7][0]) and torch.equal(first[7][1], second[7][1])
    assert not torch.equal(first[7][0], first[8][0])


class FixedDraws:
    """Stands in for a generator and returns the lowest scale and angle as given."""

    def __init__(self, scale: float, angle: float, flip: bool) -> None:
        self.values, self.flip = iter((scale, angle)), flip

    def uniform(self, low: float, high: float) -> float:
        value = next(self.values)
        assert low <= value <= high
        return value

    def random(self) -> float:
        return 0.0 if self.flip else 1.0


@pytest.mark.parametrize("augmentation", [reference.augment, reference.augment_fast])
def test_flip_by_hand(augmentation: reference.Augmentation) -> None:
    image = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    mask = (image[0] > 0).astype(np.uint8)
    flipped, flipped_mask = augmentation(image, mask, FixedDraws(1.0, 0.0, True))  # type: ignore[arg-type]
    np.testing.assert_allclose(flipped, image[..., ::-1], atol=1e-5)
    assert (flipped_mask.numpy() == mask[None, :, ::-1]).all()
    kept, _ = augmentation(image, mask, FixedDraws(1.0, 0.0, False))  # type: ignore[arg-type]
    np.testing.assert_allclose(kept, image, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("scale", "angle"), [(0.95, 12.0), (1.05, -9.0), (1.0, 15.0)])
def test_fast_augmentation_agrees_with_the_slow(scale: float, angle: float, flip: bool) -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = np.exp(-((rows - 20) ** 2 / 100 + (columns - 40) ** 2 / 200)).astype(np.float32)
    image, mask = np.stack([blob, 2 * blob, -blob]), (blob > 0.5).astype(np.uint8)
    slow, slow_mask = reference.augment(image, mask, FixedDraws(scale, angle, flip))  # type: ignore[arg-type]
    fast, fast_mask = reference.augment_fast(image, mask, FixedDraws(scale, angle, flip))  # type: ignore[arg-type]
    assert abs(slow - fast).max() < 0.15  # at most half a voxel apart, by the rounding of the enlarged image's size
    assert dice(slow_mask.numpy(), fast_mask.numpy()) > 0.93


def test_a_restart_gives_the_same_weights(volumes: list[reference.Volume], tmp_path: Path) -> None:
    straight = training(volumes, tmp_path / "straight", 96)
    straight.run()
    training(volumes, tmp_path / "stopped", 48).run()
    resumed = training(volumes, tmp_path / "stopped", 96)
    assert resumed.progress.images == 48
    resumed.run()
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert resumed.progress.best_dice == straight.progress.best_dice
    rows = [(tmp_path / run / "log.csv").read_text().splitlines() for run in ("straight", "stopped")]
    assert rows[0][0] == "images,seconds,train_loss,val_dsc"
    for old, new in zip(rows[0][1:], rows[1][1:], strict=True):
        assert old.split(",")[0::2] == new.split(",")[0::2]  # all but the seconds (and the DSC, compared above)


def test_a_run_with_another_seed_is_refused(volumes: list[reference.Volume], tmp_path: Path) -> None:
    training(volumes, tmp_path, 16).run()
    with pytest.raises(ValueError, match="--seed: found 1, allowed 42"):
        reference.ReferenceTraining(
            volumes[:1], volumes[1:], tmp_path, images=32, seed=1, network=small_network(), workers=0
        )


def test_training_lowers_the_loss_and_keeps_the_best_weights(volumes: list[reference.Volume], tmp_path: Path) -> None:
    run = training(volumes, tmp_path, 160)
    run.run()
    losses = [float(line.split(",")[2]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
    best = torch.load(tmp_path / "model_best.pt", weights_only=True)
    network = small_network()
    network.load_state_dict(best)
    scores = reference.validation_dice(network, volumes[1:], reference.Precision(bf16=False))
    assert np.mean(scores) == pytest.approx(run.progress.best_dice)


def write_patient(folder: Path, slices: int = 4) -> None:
    """A head of 40 with a tumour of 200 in slices of 32x32; the slices' numbers have one and two digits."""
    folder.mkdir(parents=True)
    for number in range(8, 8 + slices):
        image, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
        image[4:28, 4:28] = 40 + number
        image[10:16, 12:20], mask[10:16, 12:20] = 200, 255
        Image.fromarray(image).save(folder / f"{folder.name}_{number}.tif")
        Image.fromarray(mask).save(folder / f"{folder.name}_{number}_mask.tif")


def test_slices_are_read_by_number(tmp_path: Path) -> None:
    write_patient(tmp_path / "TCGA_XX_0001_20000101")
    image, mask = reference.read_patient(tmp_path / "TCGA_XX_0001_20000101")
    assert image.shape == (3, 32, 32, 4)
    assert image[0, 5, 5].tolist() == [48, 49, 50, 51]
    assert mask is not None and mask.max() == 1 and mask.sum() == 4 * 6 * 8


def test_a_folder_without_slices_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no slice"):
        reference.read_patient(tmp_path)


def test_the_cache_returns_the_same_volume(tmp_path: Path) -> None:
    folder = tmp_path / "TCGA_XX_0001_20000101"
    write_patient(folder)
    computed, read = (reference.load_volume(folder, tmp_path / "cache", SIZE) for _ in range(2))
    assert isinstance(read.image, np.memmap)
    assert (computed.image == read.image).all() and (computed.mask == read.mask).all()


def test_masks_are_written_beside_nothing_else(tmp_path: Path) -> None:
    class Bright(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :1] > 1).float()

    folder = tmp_path / "in" / "TCGA_XX_0001_20000101"
    write_patient(folder)
    assert reference.predict_patient(Bright(), folder, tmp_path / "out", reference.Precision(bf16=False)) == 4
    names = sorted(path.name for path in (tmp_path / "out" / folder.name).iterdir())
    assert names == [f"TCGA_XX_0001_20000101_{number}_mask.tif" for number in (10, 11, 8, 9)]
    written = np.asarray(Image.open(tmp_path / "out" / folder.name / "TCGA_XX_0001_20000101_9_mask.tif"))
    assert set(np.unique(written)) == {0, 255}
    assert (written[10:16, 12:20] == 255).mean() > 0.8 and (written > 0).sum() < 1.3 * 6 * 8
    first = np.asarray(Image.open(tmp_path / "out" / folder.name / "TCGA_XX_0001_20000101_8_mask.tif"))
    assert not first.any()  # the recipe leaves the first and the last slice out


@pytest.mark.parametrize("command", ["train", "predict"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        reference.build_parser().parse_args([command, "--help"])
    text = capsys.readouterr().out
    for option in ("--dataset-dir", "--split-file", "--output-dir", "--threads", "--bf16"):
        assert option in text


def test_the_command_line(tmp_path: Path) -> None:
    names = ["TCGA_XX_0001_20000101", "TCGA_XX_0002_20000101"]
    for name in names:
        write_patient(tmp_path / "data" / name)
    (tmp_path / "split.json").write_text(json.dumps({"train": names[:1], "val": names[1:]}))
    shared = ["--dataset-dir", str(tmp_path / "data"), "--split-file", str(tmp_path / "split.json"), "--threads", "1"]
    run = ["--output-dir", str(tmp_path / "run"), "--images", "16", "--workers", "0", "--image-size", "32"]
    reference.main(["train", *shared, *run])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["images"] == 16 and set(report["best"]["val_dsc"]) == {names[1]}
    weights = str(tmp_path / "run" / "model_best.pt")
    reference.main(["predict", *shared, "--split", "val", "--weights", weights, "--output-dir", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [names[1]]
    assert len(list((tmp_path / "out" / names[1]).glob("*_mask.tif"))) == 4
