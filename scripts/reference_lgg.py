#!/usr/bin/env python
"""Retrain the U-Net recipe of brain-segmentation-pytorch on a fixed patient split, as a baseline, and segment with it.

    python scripts/reference_lgg.py train --dataset-dir DIR/kaggle_3m --split-file split.json --output-dir RUN
    python scripts/reference_lgg.py predict --dataset-dir DIR/kaggle_3m --weights RUN/model_best.pt --output-dir MASKS

Training reads only the train and val patients of the split. A stopped run goes on where its last state was saved when
the same command is given again. With --fast-augmentation a sample is scaled, rotated and flipped in one bilinear
resampling (masks: nearest) instead of two after each other: the random distribution is the same, the image is blurred
once instead of twice.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import rescale, rotate
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from medseg_ext.files import write_beside
from medseg_ext.metrics.overlap import dice
from medseg_ext.metrics.reference_protocol import ReferenceGrid, keep_largest_component

IMAGE_SIZE = 256
BATCH_SIZE = 16
LEARNING_RATE = 1e-4
MAX_SCALE = 0.05
MAX_ANGLE = 15.0  # degrees
FLIP_PROBABILITY = 0.5
THRESHOLD = 0.5

Augmentation = Callable[[NDArray[np.float32], NDArray[np.uint8], np.random.Generator], tuple[Tensor, Tensor]]


# Data


def slice_files(folder: Path) -> list[Path]:
    """The image slices of one patient's folder in the order of their numbers."""
    files = [path for path in folder.glob("*.tif") if not path.stem.endswith("_mask")]
    if not files:
        raise FileNotFoundError(f"{folder}: found no slice, allowed <name>_<number>.tif")
    return sorted(files, key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))


def read_patient(folder: Path, with_mask: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Read the slices of one patient in the order of their numbers.

    Args:
        folder: a patient's folder with ``<name>_<n>.tif`` and ``<name>_<n>_mask.tif``.
        with_mask: read the masks too.

    Returns:
        image (3, H, W, D) and mask (H, W, D) of 0/1, or None without masks.
    """
    files = slice_files(folder)
    image = np.stack([np.moveaxis(np.asarray(Image.open(path)), 2, 0) for path in files], axis=3)
    if not with_mask:
        return image, None
    masks = [np.asarray(Image.open(path.with_name(f"{path.stem}_mask.tif"))) for path in files]
    return image, (np.stack(masks, axis=2) > 0).astype(np.uint8)


@dataclass
class Volume:
    """One patient on the reference grid.

    Args:
        patient: the folder's name.
        image: normalised input, float32 (slices, channels, rows, columns).
        mask: uint8 (slices, rows, columns) of 0/1.
    """

    patient: str
    image: NDArray[np.float32]
    mask: NDArray[np.uint8]


def load_volume(folder: Path, cache_dir: Path | None = None, size: int = IMAGE_SIZE) -> Volume:
    """Bring one patient onto the reference grid, or map it from the cache when it was there before."""
    if cache_dir is not None:
        image_file, mask_file = (cache_dir / f"{folder.name}_{size}_{kind}.npy" for kind in ("image", "mask"))
        if image_file.is_file() and mask_file.is_file():
            return Volume(folder.name, np.load(image_file, mmap_mode="r"), np.load(mask_file))
    image, mask = read_patient(folder)
    assert mask is not None
    grid = ReferenceGrid(image, size)
    volume = Volume(folder.name, grid.image(), grid.to_grid(mask))
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        for file, array in ((mask_file, volume.mask), (image_file, volume.image)):
            with write_beside(file) as part:
                np.save(part, array)
    return volume


def load_volumes(
    dataset_dir: Path, patients: Sequence[str], cache_dir: Path | None = None, size: int = IMAGE_SIZE
) -> list[Volume]:
    """Load several patients; see :func:`load_volume`."""
    return [load_volume(dataset_dir / name, cache_dir, size) for name in tqdm(patients, desc="Preprocessing")]


def slice_probabilities(mask: NDArray[Any]) -> NDArray[np.float64]:
    """Probability with which each slice of a patient is drawn: by its tumour area, with a tenth spread evenly.

    Args:
        mask: (slices, rows, columns) of 0/1. Without any foreground all slices are equally likely.
    """
    areas = np.asarray(mask, np.float64).sum(axis=(1, 2))
    total, count = areas.sum(), len(areas)
    if total == 0:
        return np.full(count, 1 / count)
    return (areas + 0.1 * total / count) / (1.1 * total)


# Augmentation


def _centred(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Cut or zero-pad the two leading axes of equal length to ``size``, keeping the centre."""
    missing = size - array.shape[0]
    if missing > 0:
        pad = (missing // 2, missing - missing // 2)
        return np.pad(array, (pad, pad, *((0, 0),) * (array.ndim - 2)))
    start = -missing // 2
    return array[start : start + size, start : start + size]


def augment(
    image: NDArray[np.float32], mask: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Scale, rotate and flip one slice with scikit-image, one after the other, as the reference does.

    Args:
        image: (channels, size, size).
        mask: (size, size).
        generator: source of the random scale, angle and flip.

    Returns:
        image (channels, size, size) and mask (1, size, size), both float32.
    """
    size = image.shape[-1]
    scale, angle, flip = draw_transform(generator)
    picture: NDArray[Any] = np.moveaxis(image, 0, 2)
    picture = rescale(
        picture, (scale, scale), preserve_range=True, mode="constant", anti_aliasing=False, channel_axis=2
    )
    labels = rescale(mask, (scale, scale), order=0, preserve_range=True, mode="constant", anti_aliasing=False)
    picture = rotate(_centred(picture, size), angle, resize=False, preserve_range=True, mode="constant")
    labels = rotate(_centred(labels, size), angle, resize=False, order=0, preserve_range=True, mode="constant")
    if flip:
        picture, labels = np.fliplr(picture), np.fliplr(labels)
    channels = np.ascontiguousarray(np.moveaxis(picture, 2, 0), dtype=np.float32)
    return torch.from_numpy(channels), torch.from_numpy(np.ascontiguousarray(labels[None], dtype=np.float32))


def augment_fast(
    image: NDArray[np.float32], mask: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The transform of :func:`augment` in a single resampling."""
    scale, angle, flip = draw_transform(generator)
    cosine, sine = (function(math.radians(angle)) / scale for function in (math.cos, math.sin))
    sign = -1.0 if flip else 1.0
    # Where each output position comes from, (x, y) from the centre: unflip, turn back, shrink back.
    theta = torch.tensor([[[sign * cosine, -sine, 0.0], [sign * sine, cosine, 0.0]]])
    positions = functional.affine_grid(theta, [1, 1, *image.shape[1:]], align_corners=False)
    sampled = [
        functional.grid_sample(torch.from_numpy(np.array(array, np.float32))[None], positions, mode, "zeros", False)[0]
        for array, mode in ((image, "bilinear"), (mask[None], "nearest"))
    ]
    return sampled[0], sampled[1]


def draw_transform(generator: np.random.Generator) -> tuple[float, float, bool]:
    """Draw scale, angle in degrees (positive counter-clockwise) and whether to flip left and right."""
    scale = generator.uniform(1 - MAX_SCALE, 1 + MAX_SCALE)
    return scale, generator.uniform(-MAX_ANGLE, MAX_ANGLE), bool(generator.random() < FLIP_PROBABILITY)


class RandomSlices(Dataset[tuple[Tensor, Tensor]]):
    """Slices drawn by patient and tumour area, augmented. Sample ``i`` depends on the seed and ``i`` alone.

    Args:
        volumes: the training patients.
        count: number of samples.
        seed: seed of the drawing.
        augmentation: :func:`augment` or :func:`augment_fast`.
    """

    def __init__(
        self, volumes: Sequence[Volume], count: int, seed: int = 42, augmentation: Augmentation = augment
    ) -> None:
        self.volumes, self.count, self.seed, self.augmentation = volumes, count, seed, augmentation
        self.probabilities = [slice_probabilities(volume.mask) for volume in volumes]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng((self.seed, index))
        patient = int(generator.integers(len(self.volumes)))
        chosen = int(generator.choice(len(self.probabilities[patient]), p=self.probabilities[patient]))
        volume = self.volumes[patient]
        return self.augmentation(volume.image[chosen], volume.mask[chosen], generator)


# Network and loss


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class ReferenceUNet(nn.Module):
    """U-Net with batch normalisation whose output is the tumour's probability.

    Args:
        in_channels: channels of the input (N, in_channels, H, W); H and W divisible by 16.
        features: channels of the five levels, from the finest.

    Source: Ronneberger et al. 2015, in the size used by Buda et al. 2019: 7,763,041 parameters.
    """

    def __init__(self, in_channels: int = 3, features: Sequence[int] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [_double_convolution(a, b) for a, b in zip((in_channels, *features[:-1]), features, strict=True)]
        )
        pairs = list(zip(features[:0:-1], features[-2::-1], strict=True))
        self.enlarge = nn.ModuleList([nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs])
        self.up = nn.ModuleList([_double_convolution(2 * shallow, shallow) for _, shallow in pairs])
        self.head = nn.Conv2d(features[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to probabilities (N, 1, H, W)."""
        skipped: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool2d(x, 2))
            skipped.append(x)
        skipped.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat((enlarge(x), skipped.pop()), dim=1))
        return torch.sigmoid(self.head(x))


def batch_dice_loss(probabilities: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice of the whole batch taken as one volume."""
    p, y = probabilities.float().flatten(), truth.float().flatten()
    return 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


# Running the network


@dataclass(frozen=True)
class Precision:
    """How the network is run: bfloat16 autocast with channels-last memory, or plain float32."""

    bf16: bool = True

    def prepare(self, network: nn.Module) -> nn.Module:
        """Bring the network's weights into the memory format."""
        return network.to(memory_format=torch.channels_last) if self.bf16 else network  # type: ignore[call-overload]

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Run the network on (N, C, H, W) and return float32."""
        if not self.bf16:
            return network(images)
        with torch.autocast("cpu", torch.bfloat16):
            return network(images.contiguous(memory_format=torch.channels_last)).float()


def predict_probabilities(
    network: nn.Module, images: NDArray[np.float32], precision: Precision, batch_size: int = BATCH_SIZE
) -> NDArray[np.float32]:
    """Tumour probability of each slice on the grid.

    Args:
        network: a network that returns probabilities.
        images: (slices, channels, size, size).
        precision: number format.
        batch_size: slices at a time.

    Returns:
        (slices, size, size).
    """
    network.eval()
    with torch.inference_mode():
        parts = [
            precision(network, torch.from_numpy(np.array(images[start : start + batch_size])))[:, 0].numpy()
            for start in range(0, len(images), batch_size)
        ]
    return np.concatenate(parts)


def predict_patient(network: nn.Module, folder: Path, output_dir: Path, precision: Precision) -> int:
    """Segment the slices of one patient's folder and write one mask a slice, in native size.

    Returns:
        The number of slices.
    """
    image, _ = read_patient(folder, with_mask=False)
    grid = ReferenceGrid(image)
    foreground = keep_largest_component(predict_probabilities(network, grid.image(), precision) > THRESHOLD)
    mask = grid.to_native(foreground) * np.uint8(255)
    target = output_dir / folder.name
    target.mkdir(parents=True, exist_ok=True)
    for index, file in enumerate(slice_files(folder)):
        Image.fromarray(np.ascontiguousarray(mask[..., index])).save(target / f"{file.stem}_mask.tif")
    return mask.shape[2]


def validation_dice(network: nn.Module, volumes: Sequence[Volume], precision: Precision) -> list[float]:
    """Volume Dice of each patient on the grid, after keeping the prediction's largest component."""
    return [
        dice(keep_largest_component(predict_probabilities(network, v.image, precision) > THRESHOLD), v.mask)
        for v in volumes
    ]


# Training


@dataclass
class Progress:
    """What a run has done so far, over all its restarts."""

    images: int = 0
    seconds: float = 0.0
    best_dice: float = -1.0
    best_images: int = 0
    last_dice: float = float("nan")


class ReferenceTraining:
    """The recipe's training loop, which saves its state and continues from it.

    Args:
        train: training patients.
        val: validation patients, which choose the weights that are kept.
        output_dir: receives ``state.pt``, ``log.csv``, ``model_best.pt``, ``model_last.pt``.
        images: training images in all, rounded down to whole batches.
        val_every: training images between two validations.
        save_every: training images between two saved states.
        seed: seed of the weights and of the samples.
        precision: number format.
        augmentation: how a sample is transformed.
        workers: processes that load and augment, 0 for none.
        network: the network, by default the reference's.
    """

    def __init__(
        self,
        train: Sequence[Volume],
        val: Sequence[Volume],
        output_dir: Path,
        *,
        images: int,
        val_every: int = 2640,
        save_every: int = 1000,
        seed: int = 42,
        precision: Precision = Precision(),
        augmentation: Augmentation = augment,
        workers: int = 1,
        network: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.train, self.val, self.output_dir = train, val, output_dir
        self.images = images // BATCH_SIZE * BATCH_SIZE
        self.val_every, self.save_every, self.seed = val_every, save_every, seed
        self.precision, self.augmentation, self.workers = precision, augmentation, workers
        self.network = precision.prepare(network if network is not None else ReferenceUNet())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE, fused=True)
        self.progress = Progress()
        self.losses: list[float] = []
        self.best_weights: dict[str, Tensor] = {}
        output_dir.mkdir(parents=True, exist_ok=True)
        self.state_file, self.log_file = output_dir / "state.pt", output_dir / "log.csv"
        if self.state_file.is_file():
            self._load_state()

    def run(self) -> Progress:
        """Train to the end, or from the saved state to the end."""
        bar = tqdm(total=self.images, initial=self.progress.images, desc="Training", unit="image", mininterval=5)
        started = time.perf_counter() - self.progress.seconds
        for images, truth in self._batches():
            self.losses.append(self._step(images, truth))
            before, self.progress.images = self.progress.images, self.progress.images + len(images)
            self.progress.seconds = time.perf_counter() - started
            bar.update(len(images))
            bar.set_postfix(loss=f"{np.mean(self.losses[-60:]):.3f}", best=f"{self.progress.best_dice:.4f}")
            finished = self.progress.images >= self.images
            validated = finished or _crossed(before, self.progress.images, self.val_every)
            if validated:
                self._validate()
                self.progress.seconds = time.perf_counter() - started
            if validated or _crossed(before, self.progress.images, self.save_every):
                self._save_state()
        bar.close()
        return self.progress

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples = RandomSlices(self.train, self.images, self.seed, self.augmentation)
        rest = range(self.progress.images, self.images)
        return iter(
            DataLoader(
                samples,
                BATCH_SIZE,
                sampler=rest,
                num_workers=self.workers if len(rest) else 0,
                prefetch_factor=4 if self.workers and len(rest) else None,
            )
        )

    def _step(self, images: Tensor, truth: Tensor) -> float:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = batch_dice_loss(self.precision(self.network, images), truth)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def _validate(self) -> None:
        self.progress.last_dice = float(np.mean(validation_dice(self.network, self.val, self.precision)))
        if self.progress.last_dice > self.progress.best_dice:
            self.progress.best_dice, self.progress.best_images = self.progress.last_dice, self.progress.images
            self.best_weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            _save(self.best_weights, self.output_dir / "model_best.pt")
        _save(self.network.state_dict(), self.output_dir / "model_last.pt")
        self._log()
        self.losses = []

    def _log(self) -> None:
        row: OrderedDict[str, str] = OrderedDict(
            images=str(self.progress.images),
            seconds=f"{self.progress.seconds:.0f}",
            train_loss=f"{np.mean(self.losses):.5f}" if self.losses else "",
            val_dsc=f"{self.progress.last_dice:.5f}",
        )
        rows: list[dict[str, str]] = []
        if self.log_file.is_file():
            with self.log_file.open(newline="") as stream:
                # Rows written after the last saved state are about to be written again.
                rows = [old for old in csv.DictReader(stream) if int(old["images"]) < self.progress.images]
        with self.log_file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            writer.writeheader()
            writer.writerows([*rows, row])

    def _save_state(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
            "progress": vars(self.progress),
            "losses": self.losses,
            "seed": self.seed,
        }
        _save(state, self.state_file)

    def _load_state(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        if state["seed"] != self.seed:
            raise ValueError(f"--seed: found {self.seed}, allowed {state['seed']}, that of {self.state_file}")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_weights, self.losses = state["best_weights"], state["losses"]
        self.progress = Progress(**state["progress"])


def _crossed(before: int, after: int, interval: int) -> bool:
    return before // interval != after // interval


def _save(content: Any, file: Path) -> None:
    with write_beside(file) as part:
        torch.save(content, part)


def _scores(images: int, volumes: Sequence[Volume], scores: Sequence[float]) -> dict[str, Any]:
    patients = {volume.patient: score for volume, score in zip(volumes, scores, strict=True)}
    return {"images": images, "val_dsc_mean": float(np.mean(scores)), "val_dsc": patients}


def train(options: argparse.Namespace) -> None:
    """Train as the command line says and write ``report.json``."""
    from medseg_ext.training import keep_freed_memory  # here: prediction must not pay for these imports

    keep_freed_memory()
    split = json.loads(options.split_file.read_text())
    cache_dir = options.output_dir / "cache"
    train, val = (
        load_volumes(options.dataset_dir, split[part], cache_dir, options.image_size) for part in ("train", "val")
    )
    training = ReferenceTraining(
        train,
        val,
        options.output_dir,
        images=options.images,
        val_every=options.val_every,
        seed=options.seed,
        precision=Precision(options.bf16),
        augmentation=augment_fast if options.fast_augmentation else augment,
        workers=options.workers,
    )
    progress = training.run()
    last = validation_dice(training.network, val, training.precision)
    training.network.load_state_dict(training.best_weights)
    best = validation_dice(training.network, val, training.precision)
    report = {
        "images": progress.images,
        "seconds": round(progress.seconds),
        "best": _scores(progress.best_images, val, best),
        "last": _scores(progress.images, val, last),
    }
    (options.output_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"best weights after {progress.best_images} images: mean validation DSC {np.mean(best):.4f}")
    print(f"last weights after {progress.images} images: mean validation DSC {np.mean(last):.4f}")


def load_network(weights: Path, precision: Precision) -> nn.Module:
    """The network for prediction, with the weights of a training."""
    network = precision.prepare(ReferenceUNet())
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def predict(options: argparse.Namespace) -> None:
    """Segment as the command line says."""
    precision = Precision(options.bf16)
    network = load_network(options.weights, precision)
    if options.split_file is None:
        folders = sorted(path for path in options.dataset_dir.iterdir() if path.is_dir())
    else:
        folders = [options.dataset_dir / name for name in json.loads(options.split_file.read_text())[options.split]]
    for folder in tqdm(folders, desc="Segmenting", unit="patient"):
        predict_patient(network, folder, options.output_dir, precision)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="train|predict")
    training = commands.add_parser("train", help="train from scratch, or go on")
    training.set_defaults(function=train)
    _add_shared(training, split_required=True, output="receives weights, state, log and cache")
    training.add_argument("--images", type=int, default=40000, help="training images; the whole recipe: 263000 (40000)")
    training.add_argument("--val-every", type=int, default=2640, help="training images between validations (2640)")
    training.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="rows and columns of the grid (256)")
    training.add_argument("--workers", type=int, default=1, help="processes that load and augment (1)")
    training.add_argument("--seed", type=int, default=42, help="seed of weights and samples (42)")
    training.add_argument(
        "--fast-augmentation", action="store_true", help="scale, rotate and flip in one resampling instead of several"
    )
    prediction = commands.add_parser("predict", help="write a mask of native size for each slice")
    prediction.set_defaults(function=predict)
    _add_shared(prediction, split_required=False, output="receives <patient>/<slice>_mask.tif")
    prediction.add_argument("--weights", type=Path, required=True, help="model_best.pt or model_last.pt of a training")
    prediction.add_argument("--split", default="test", help="which patients of the split file (test)")
    return parser


def _add_shared(parser: argparse.ArgumentParser, split_required: bool, output: str) -> None:
    parser.add_argument(
        "--dataset-dir", "--dataset_dir", type=Path, required=True, help="folder kaggle_3m with one folder a patient"
    )
    parser.add_argument(
        "--split-file", "--split_file", type=Path, required=split_required, help="JSON with lists of patients by name"
    )
    parser.add_argument("--output-dir", "--output_dir", type=Path, required=True, help=output)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the network (all)")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 with channels-last memory (on)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = build_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.function(options)


if __name__ == "__main__":
    main()
