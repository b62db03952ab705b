"""The LGG bundle against the reference program: training, inference, and the first mask of a fresh process."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reference_lgg as reference
import torch
from benchmark_tools import Contender, Section, timed
from ignite.engine import Events
from monai.bundle import ConfigParser
from torch.utils.data import DataLoader

from medseg_ext.errors import InputError
from medseg_ext.layouts.splits import read_split, write_split
from medseg_ext.phantoms import make_phantom
from medseg_ext.phantoms.writers import write_kaggle

FLOAT32, BF16, BUNDLE = "reference float32", "reference bfloat16", "bundle"
BF16_NOTE = "reference bfloat16: autocast, with channels-last memory."
WARM_UP_STEPS = 2
SCRIPTS = Path(__file__).resolve().parent

OUTSIDE_THE_STEP = frozenset(
    {
        "CheckpointSaver", "MLFlowHandler", "StatsHandler", "TensorBoardStatsHandler", "TrainingState",
        "ValidationHandler",
    }
)  # fmt: skip
"""Handlers that do nothing in an ordinary training step but validate, log or save."""


@dataclass(frozen=True)
class Setting:
    """What all contenders share.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder with one folder a patient, in the Kaggle layout.
        scratch: folder for what the contenders write.
        threads: threads of the network.
        steps: measured training steps a round.
    """

    bundle: Path
    dataset_dir: Path
    scratch: Path
    threads: int
    steps: int

    @property
    def patients(self) -> list[str]:
        """Names of the patients' folders."""
        return sorted(path.name for path in self.dataset_dir.iterdir() if path.is_dir())

    @property
    def slices(self) -> int:
        """Slices of all patients."""
        return sum(len(reference.slice_files(self.dataset_dir / name)) for name in self.patients)


def collect_patients(source: Path | None, split_file: Path | None, count: int, scratch: Path) -> Path:
    """Bring the patients to measure with into one folder of their own.

    Args:
        source: folder ``kaggle_3m`` of real patients, or None for phantoms of 256 x 256 x 24.
        split_file: take train patients of this file only.
        count: number of patients, two or more (one of them stands in for validation).
        scratch: where the folder is made.

    Raises:
        InputError: there are fewer than two patients.
    """
    target = scratch / "data" / "kaggle_3m"
    if source is None:
        for seed in range(count):
            write_kaggle(make_phantom(seed, (256, 256, 24), None, ("t1", "flair", "t1ce")), target.parent)
        return target
    names = sorted(path.name for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    if split_file is not None:
        train = set(read_split(split_file)["train"])
        names = [name for name in names if name in train]
    if len(names) < 2:
        raise InputError(source, f"{len(names)} patients' folders", "two or more, as in kaggle_3m")
    for name in names[:count]:
        shutil.copytree(source / name, target / name)
    return target


# Training


def training_section(setting: Setting) -> Section:
    """Training images a second, loading and augmentation included."""
    volumes = reference.load_volumes(setting.dataset_dir, setting.patients)
    contenders = [
        Contender(name, _reference_training(volumes, reference.Precision(bf16), setting.steps))
        for name, bf16 in ((FLOAT32, False), (BF16, True))
    ]
    bundle, shape = _bundle_training(setting)
    size = reference.IMAGE_SIZE
    return Section(
        "Training",
        "images/s",
        True,
        [*contenders, Contender(BUNDLE, bundle)],
        (
            "Loading and augmentation included; patients are in memory beforehand.",
            f"An image: reference 3 x {size} x {size}, bundle {' x '.join(map(str, shape))} (channels, rows, columns).",
            f"Timed steps a round: {setting.steps}, after {WARM_UP_STEPS} untimed ones.",
            BF16_NOTE,
        ),
    )


def _reference_training(
    volumes: Sequence[reference.Volume], precision: reference.Precision, steps: int
) -> Callable[[], float]:
    network = precision.prepare(reference.ReferenceUNet()).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=reference.LEARNING_RATE)
    rounds = itertools.count()
    count = (WARM_UP_STEPS + steps) * reference.BATCH_SIZE

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        samples = reference.RandomSlices(volumes, count, seed=next(rounds))
        return iter(DataLoader(samples, reference.BATCH_SIZE, num_workers=1))

    def run() -> float:
        stamps = []
        for images, truth in batches():
            optimizer.zero_grad(set_to_none=True)
            reference.batch_dice_loss(precision(network, images), truth).backward()
            optimizer.step()
            stamps.append(time.perf_counter())
        return _rate(stamps, reference.BATCH_SIZE)

    return run


def _bundle_training(setting: Setting) -> tuple[Callable[[], float], tuple[int, ...]]:
    """The bundle's own trainer with all that belongs to a step, without validation, logs and checkpoints.

    Returns:
        What trains for a round and returns images a second, and the shape of a sample.
    """
    parser = read_config(setting.bundle, "train.json")
    names = setting.patients
    split_file = setting.scratch / "split.json"
    write_split(split_file, {"train": names[:-1], "val": names[-1:], "test": []})
    parser["dataset_dir"], parser["split_file"] = str(setting.dataset_dir), str(split_file)
    parser["output_dir"] = str(setting.scratch / "training")
    parser["train"]["handlers"] = [entry for entry in parser["train"]["handlers"] if _belongs_to_step(entry)]
    parser["train"]["trainer"]["epoch_length"] = WARM_UP_STEPS + setting.steps
    parser.parse(True)
    parser.get_parsed_content("initialize")
    torch.set_num_threads(setting.threads)
    trainer = parser.get_parsed_content("train::trainer")
    batch_size = parser.get_parsed_content("train::dataloader").batch_size
    shape = tuple(parser.get_parsed_content("train::dataset")[0]["image"].shape)
    stamps: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: stamps.append(time.perf_counter()))

    def run() -> float:
        stamps.clear()
        trainer.state.max_epochs = trainer.state.epoch + 1
        trainer.run()
        return _rate(stamps, batch_size)

    return run, shape


def _belongs_to_step(handler: str | dict[str, Any]) -> bool:
    return isinstance(handler, str) or handler["_target_"].rsplit(".", 1)[-1] not in OUTSIDE_THE_STEP


def _rate(stamps: Sequence[float], batch_size: int) -> float:
    """Images a second after the warm-up, from the times at which steps ended."""
    first = stamps[WARM_UP_STEPS - 1]
    return (len(stamps) - WARM_UP_STEPS) * batch_size / (stamps[-1] - first)


# Inference


def inference_section(setting: Setting, weights: Path) -> Section:
    """Slices a second from TIFF files to masks on disk, in a process that is warm."""
    contenders = [
        Contender(name, _reference_inference(setting, weights, reference.Precision(bf16)))
        for name, bf16 in ((FLOAT32, False), (BF16, True))
    ]
    return Section(
        "Inference, TIFF files to masks on disk",
        "slices/s",
        True,
        [*contenders, Contender(BUNDLE, _bundle_inference(setting))],
        (
            f"{len(setting.patients)} patients, {setting.slices} slices; networks are loaded and warm.",
            "The reference's volumes are resized plane by plane: the same result as its own call, many times as fast.",
            BF16_NOTE,
        ),
    )


def _reference_inference(setting: Setting, weights: Path, precision: reference.Precision) -> Callable[[], float]:
    network = reference.load_network(weights, precision)
    target = setting.scratch / f"masks_reference_{'bf16' if precision.bf16 else 'float32'}"
    folders = [setting.dataset_dir / name for name in setting.patients]
    reference.predict_patient(network, folders[0], target, precision)

    def segment() -> None:
        for folder in folders:
            reference.predict_patient(network, folder, target, precision)

    return lambda: _masks_rate(segment, target, setting.slices)


def _bundle_inference(setting: Setting) -> Callable[[], float]:
    target = setting.scratch / "masks_bundle"
    parser = read_config(setting.bundle, "inference.json")
    parser["dataset_dir"], parser["output_dir"] = str(setting.dataset_dir), str(target)
    parser.parse(True)
    for step in ("initialize", "weights"):
        parser.get_parsed_content(step)
    torch.set_num_threads(setting.threads)
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    return lambda: _masks_rate(evaluator.run, target, setting.slices)


def _masks_rate(segment: Callable[[], Any], target: Path, slices: int) -> float:
    """Slices a second of a call that has to write a mask a slice below ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    seconds = timed(segment)
    written = len(list(target.rglob("*_mask.tif")))
    if written != slices:
        raise InputError(target, f"{written} masks", f"{slices}, one a slice")
    return slices / seconds


# A fresh process


def first_mask_section(setting: Setting, weights: Path) -> Section:
    """Seconds from the start of a process to its end, for one patient."""
    name = setting.patients[0]
    dataset_dir = setting.scratch / "first" / "kaggle_3m"
    shutil.copytree(setting.dataset_dir / name, dataset_dir / name, dirs_exist_ok=True)
    output_dir = setting.scratch / "first_masks"
    shared = ["--dataset_dir", str(dataset_dir), "--output_dir", str(output_dir)]
    program = [sys.executable, str(SCRIPTS / "reference_lgg.py"), "predict", "--weights", str(weights), *shared]
    bundle = [sys.executable, "-m", "monai.bundle", "run", "inferring", "--config_file", "configs/inference.json"]
    commands = {
        FLOAT32: [*program, "--no-bf16"],
        BF16: [*program, "--bf16"],
        BUNDLE: [*bundle, "--bundle_root", ".", *shared],
    }
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}

    def run(command: list[str]) -> float:
        shutil.rmtree(output_dir, ignore_errors=True)
        return timed(
            lambda: subprocess.run(command, check=True, capture_output=True, cwd=setting.bundle, env=environment)
        )

    count = len(reference.slice_files(dataset_dir / name))
    return Section(
        "First masks of a fresh process",
        "s",
        False,
        [Contender(label, lambda command=command: run(command)) for label, command in commands.items()],  # type: ignore[misc]
        (f"One patient of {count} slices; from the start of the process to its end, imports included.", BF16_NOTE),
    )


def save_random_weights(path: Path) -> Path:
    """Weights for the reference where no training's are given; its speed does not depend on them."""
    torch.manual_seed(0)
    torch.save(reference.ReferenceUNet().state_dict(), path)
    return path


def read_config(bundle: Path, name: str) -> ConfigParser:
    """A bundle's config, to be changed and parsed.

    Raises:
        InputError: there is none.
    """
    file = bundle / "configs" / name
    if not file.is_file():
        raise InputError(file, "no file", "a config of the bundle")
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(bundle)
    return parser
