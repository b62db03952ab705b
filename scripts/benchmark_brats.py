"""Windows over a whole BraTS case: time, peak memory and agreement, each measured in a process of its own.

``benchmark.py brats`` is the command line. This file run by itself measures one window: it takes a task and writes what
it found, both JSON.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from benchmark_tools import Contender, Section
from monai.bundle import ConfigParser
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNet

from medseg_ext.errors import InputError
from medseg_ext.files import write_atomically
from medseg_ext.inferers import BoxWindowInferer, OpenVINONetwork
from medseg_ext.inferers.window.box import Box, air_values, cut, grown, head_bounds, head_mask
from medseg_ext.inferers.window.budget import MemoryBudget
from medseg_ext.inferers.window.forward import Forward
from medseg_ext.inferers.window.tiling import even_starts, round_up
from medseg_ext.networks import SpaceToDepth
from medseg_ext.training import keep_freed_memory
from medseg_ext.transforms import DropSmallLesions, ZScoreHead

Window = Callable[..., Any]
GIB = 1024**3
SCRIPT = Path(__file__).resolve()
SHORT = 10.0
"""Seconds: what takes less is run a second time, and the second time counts."""


# What is measured


@dataclass(frozen=True)
class NetworkSetting:
    """The network that all windows share: MONAI's SegResNet as the model zoo's bundle sets it.

    Args:
        filters: initial filters.
        stem_factor: 1, or voxels an axis that a space-to-depth stem moves into channels.
        channels: of the image.
        classes: output channels.
        weights: file of the weights; random ones without it.
        bundle: folder of a bundle, whose own network, weights, inferer and post-processing are taken instead.
    """

    filters: int = 16
    stem_factor: int = 1
    channels: int = 4
    classes: int = 3
    weights: str | None = None
    bundle: str | None = None

    @property
    def divisor(self) -> int:
        """What it needs the sizes of its input to be multiples of: three halvings, and the stem's."""
        return 8 * self.stem_factor

    def build(self) -> torch.nn.Module:
        """The network in evaluation mode."""
        torch.manual_seed(0)
        if self.bundle is not None:
            parser = _bundle_parser(Path(self.bundle))
            parser.get_parsed_content("weights")
            shipped: torch.nn.Module = parser.get_parsed_content("network")
            return shipped.eval()
        block = self.stem_factor**3
        network: torch.nn.Module = SegResNet(
            blocks_down=(1, 2, 2, 4),
            blocks_up=(1, 1, 1),
            init_filters=self.filters,
            in_channels=self.channels * block,
            out_channels=self.classes * block,
            dropout_prob=0.2,
        )
        network = network if self.stem_factor == 1 else SpaceToDepth(network, 3, self.stem_factor)
        if self.weights is not None:
            weights = Path(self.weights)
            if not weights.is_file():
                raise InputError(weights, "no file", "weights of the network")
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return network.eval()


@dataclass(frozen=True)
class Task:
    """One window on one volume.

    Args:
        image: file of the normalised float32 volume (C, H, W, D), air 0; for a bundle of the arrays as they are read.
        window: a key of ``WINDOWS``.
        options: of that window.
        network: see :class:`NetworkSetting`.
        threads: of the network.
        device: of the network and the volume.
        keep_memory: whether the process keeps freed memory, as a run of a bundle does (see
            :func:`~medseg_ext.training.keep_freed_memory`); programs of others are measured as they run.
    """

    image: str
    window: str
    options: dict[str, Any] = field(default_factory=dict)
    network: NetworkSetting = field(default_factory=NetworkSetting)
    threads: int = 1
    device: str = "cpu"
    keep_memory: bool = True


@torch.no_grad()
def run_task(task: Task, masks: Path | None = None) -> dict[str, Any]:
    """Run a window in this process.

    Args:
        task: what to run.
        masks: npz file to write the regions to.

    Returns:
        seconds (of the second call where calls are short), first_seconds, peak_bytes of the process, start_bytes
        before the first call, and what the window says of itself.
    """
    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    network = task.network.build().to(device)
    image = torch.from_numpy(np.load(task.image))[None].to(device)
    window, about = WINDOWS[task.window](Subject(network, task.network, image), **task.options)

    def segment() -> tuple[torch.Tensor, float]:
        started = time.perf_counter()
        regions = window(image, network)[0] > 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return regions, time.perf_counter() - started

    with PeakMemory(device) as memory:
        regions, first = segment()
    seconds = segment()[1] if first < SHORT else first
    if masks is not None:
        np.savez(masks, packed=np.packbits(regions.cpu().numpy()), shape=regions.shape)
    return {
        "seconds": seconds,
        "first_seconds": first,
        "peak_bytes": memory.peak,
        "start_bytes": memory.start,
        "about": about,
    }


class PeakMemory:
    """Peak memory of this process, or of its GPU, inside a ``with`` block.

    Linux keeps the highest resident size of a process since its start; elsewhere the size is looked up every few
    milliseconds.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = 0
        self.peak = 0
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start = torch.cuda.memory_allocated(self.device)
        else:
            self.start = self.peak = _resident("VmRSS")
            if not Path("/proc/self/status").is_file():
                self._watch = threading.Thread(target=self._look, daemon=True)
                self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        elif self._watch is None:
            self.peak = _resident("VmHWM")
        else:
            self._stop.set()
            self._watch.join()

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, _resident("VmRSS"))


def _resident(entry: str) -> int:
    """Bytes of resident memory, now (VmRSS) or at most so far (VmHWM).

    ``getrusage`` would do for the latter but for its counting what the parent had when it started the process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.partition(":") for line in status.read_text().splitlines())
        return next(int(value.split()[0]) * 1024 for key, _, value in lines if key == entry)
    import psutil

    return int(psutil.Process().memory_info().rss)


# The windows: each returns what to call with (image, network), and a word about itself


@dataclass(frozen=True)
class Subject:
    """What a window may prepare itself with, outside its time."""

    network: torch.nn.Module
    setting: NetworkSetting
    image: torch.Tensor


def _ours(subject: Subject, **options: Any) -> tuple[Window, str]:
    return BoxWindowInferer(**{"divisor": subject.setting.divisor, "progress": False} | options), ""


def _shipped(
    subject: Subject, openvino: bool = False, int8: bool = False, amp: bool | None = None
) -> tuple[Window, str]:
    """All of a bundle: normalising the four arrays as they are read, its window and network, dropping what is small."""
    assert subject.setting.bundle is not None
    parser = _bundle_parser(Path(subject.setting.bundle), amp)
    inferer: Any = parser.get_parsed_content("inferer")
    normalize = ZScoreHead()
    if openvino:
        settled = replace(subject, image=normalize(subject.image[0])[None])
        inferer, _ = _openvino(settled, int8, inferer.divisor, "auto" if inferer.amp else "f32")
    drop = DropSmallLesions(parser["thresholds"], parser["smallest_lesion"], parser["smallest_enhancing"])
    least = torch.tensor(parser["thresholds"]).view(-1, 1, 1, 1)

    def window(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        probability = torch.sigmoid_(inferer(normalize(image[0])[None], network)[0])
        return drop(probability)[None] >= least

    return window, "its own network and weights, from the four arrays, normalising and post-processing included"


def _monai(subject: Subject, roi_size: Sequence[int], overlap: float, mode: str) -> tuple[Window, str]:
    return SlidingWindowInferer(roi_size, sw_batch_size=1, overlap=overlap, mode=mode), ""


def _naive(subject: Subject) -> tuple[Window, str]:
    """MONAI's window as one bfloat16 channels-last pass over the head's box."""

    def window(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        crop, inside, whole = _cropped(image, subject.setting.divisor)
        crop = crop.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(image.device.type, torch.bfloat16):
            logits: Any = SlidingWindowInferer(crop.shape[2:], sw_batch_size=1)(crop, network)
        return _put_back(logits.float(), inside, whole)

    return window, ""


def _openvino(
    subject: Subject, int8: bool = False, divisor: int | None = None, precision: str = "auto"
) -> tuple[Window, str]:
    """The naive pass with OpenVINO in the place of torch."""
    divisor = divisor or subject.setting.divisor
    converted = OpenVINONetwork(subject.network, precision, (2 * divisor,) * 3)
    if int8:
        converted.quantize(_middle_pieces(_cropped(subject.image, divisor)[0], divisor))
    converted(subject.image.new_zeros((1, subject.image.shape[1], *[2 * divisor] * 3)))

    def window(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        crop, inside, whole = _cropped(image, divisor)
        return _put_back(converted(crop), inside, whole)

    about = "converted and compiled outside its time"
    return window, f"{about}, calibrated on pieces of the same volume" if int8 else about


def _nnunet(subject: Subject, patch: Sequence[int]) -> tuple[Window, str]:
    """nnU-Net's predictor on the box of what is not zero, to which its preprocessing crops."""
    package = importlib.util.find_spec("nnunetv2") is not None
    scheme = _nnunet_package if package else _nnunet_scheme

    def window(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        crop, inside, whole = _cropped(image, 1)
        return _put_back(scheme(crop, network, tuple(patch), subject.setting.classes), inside, whole)

    return window, "the package nnunetv2" if package else "nnU-Net's steps and weights in a loop of our own"


def _nnunet_package(
    image: torch.Tensor, network: torch.nn.Module, patch: tuple[int, ...], classes: int
) -> torch.Tensor:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(0.5, use_mirroring=False, device=image.device, allow_tqdm=False)
    # what reading a trained model's folder would set
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    predictor.allowed_mirroring_axes = None
    return predictor.predict_sliding_window_return_logits(image[0])[None].float()


def _nnunet_scheme(image: torch.Tensor, network: torch.nn.Module, patch: tuple[int, ...], classes: int) -> torch.Tensor:
    """Evenly spread patches at half a patch's distance, gaussian weights, sums in half precision."""
    spatial = image.shape[2:]
    pad = [max(0, p - n) for n, p in zip(spatial, patch, strict=True)]
    padding = list(itertools.chain.from_iterable((p // 2, p - p // 2) for p in reversed(pad)))
    padded = torch.nn.functional.pad(image, padding)
    weights = 10 * compute_importance_map(patch, mode="gaussian", device=image.device).half()
    total = torch.zeros((1, classes, *padded.shape[2:]), dtype=torch.half, device=image.device)
    count = torch.zeros(padded.shape[2:], dtype=torch.half, device=image.device)
    starts = [even_starts(n, p, 0.5) for n, p in zip(padded.shape[2:], patch, strict=True)]
    for start in itertools.product(*starts):
        place = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        cut(total, place).add_(network(cut(padded, place).contiguous()) * weights)
        cut(count, place).add_(weights)
    total /= count
    return cut(total, tuple(slice(p // 2, p // 2 + n) for p, n in zip(pad, spatial, strict=True))).float()


WINDOWS: dict[str, Callable[..., tuple[Window, str]]] = {
    "ours": _ours,
    "shipped": _shipped,
    "monai": _monai,
    "naive": _naive,
    "openvino": _openvino,
    "nnunet": _nnunet,
}


def _cropped(image: torch.Tensor, divisor: int) -> tuple[torch.Tensor, Box, torch.Size]:
    """The head's box of (1, C, *spatial) with zeros up to the divisor, where it lies, and the whole's size."""
    box = head_bounds(head_mask(image[0], air_values(image[0], 0.0)))
    spatial = image.shape[2:]
    box = box or Box((0,) * len(spatial), tuple(spatial))
    box = grown(box, [round_up(n, divisor) for n in box.size], spatial)
    inside, own = box.within(spatial)
    crop = image.new_zeros((*image.shape[:2], *box.size))
    cut(crop, own).copy_(cut(image, inside))
    return crop, box, spatial


def _put_back(logits: torch.Tensor, box: Box, spatial: Sequence[int]) -> torch.Tensor:
    inside, own = box.within(spatial)
    whole = logits.new_full((*logits.shape[:2], *spatial), -20.0)
    cut(whole, inside).copy_(cut(logits, own))
    return whole


def _middle_pieces(image: torch.Tensor, divisor: int, count: int = 4) -> Iterator[torch.Tensor]:
    """Some pieces along the middle of a volume."""
    size = [min(n, round_up(48, 2 * divisor)) // divisor * divisor for n in image.shape[2:]]
    for i in range(count):
        starts = [(n - s) // 2 for n, s in zip(image.shape[2:], size, strict=True)]
        starts[0] = (image.shape[2] - size[0]) * i // max(1, count - 1)
        yield cut(image, tuple(slice(a, a + s) for a, s in zip(starts, size, strict=True))).contiguous()


@functools.cache
def _bundle_parser(bundle: Path, amp: bool | None = None) -> ConfigParser:
    file = bundle / "configs" / "inference.json"
    if not file.is_file():
        raise InputError(file, "no file", "a config of the bundle")
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(bundle)
    if amp is not None:
        parser["amp"] = amp
    parser.parse(True)
    return parser


# Rows


@dataclass
class Setting:
    """What all rows share.

    Args:
        image: file of the normalised volume.
        network: see :class:`NetworkSetting`.
        threads: of the network.
        device: as torch names it.
        work: folder for results and masks; what is there already is not measured again.
        patch: edges of the windows that stand for 128 x 128 x 128.
        zoo_window: edges of the window at the model zoo's setting.
        timeout: seconds for a row.
        same_process: run everything in this process: quick, but then peaks of memory mean nothing.
        truth: regions (3, H, W, D) bool, to compare with; None not to.
        bundle: folder of the bundle as shipped, or None.
    """

    image: Path
    network: NetworkSetting
    threads: int
    device: str
    work: Path
    patch: tuple[int, int, int] = (128, 128, 128)
    zoo_window: tuple[int, int, int] = (240, 240, 160)
    timeout: float = 3600.0
    same_process: bool = False
    truth: np.ndarray | None = None
    bundle: Path | None = None

    def task(self, window: str, options: dict[str, Any] | None = None, **changes: Any) -> Task:
        """A task in this setting."""
        values: dict[str, Any] = {"image": str(self.image), "network": self.network} | changes
        return Task(window=window, options=options or {}, threads=self.threads, device=self.device, **values)


@dataclass
class Measured:
    """The rows of one section, and what was found beside their times."""

    setting: Setting
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def contender(self, name: str, task: Task) -> Contender:
        """A row."""
        rounds = itertools.count()
        self.found[name] = []

        def run() -> float:
            self.found[name].append(self._measure(task, next(rounds)))
            return float(self.found[name][-1].get("seconds", "nan"))

        return Contender(name, run)

    def _measure(self, task: Task, number: int) -> dict[str, Any]:
        text = json.dumps(asdict(task), sort_keys=True)
        stem = f"{task.window}-{hashlib.sha256(text.encode()).hexdigest()[:12]}-{number}"
        result, masks = self.setting.work / f"{stem}.json", self.setting.work / f"{stem}.npz"
        if not result.is_file():
            if self.setting.same_process:
                found = run_task(task, masks)
            else:
                found = _in_process_of_its_own(text, masks, self.setting)
            if "error" in found:
                return found  # to be tried again next time
            write_atomically(result, json.dumps(found))
        return {"masks": masks, **json.loads(result.read_text())}

    def columns(self) -> dict[str, dict[str, float]]:
        """Memory and agreement of each row, for the table."""
        columns: dict[str, dict[str, float]] = {"peak GiB": {}, "beyond start": {}, "Dice to first": {}}
        first = next((_masks(found[0]) for found in self.found.values() if "masks" in found[0]), None)
        for name, found in self.found.items():
            good = [one for one in found if "error" not in one]
            if not good:
                continue
            columns["peak GiB"][name] = max(one["peak_bytes"] for one in good) / GIB
            columns["beyond start"][name] = max(one["peak_bytes"] - one["start_bytes"] for one in good) / GIB
            masks = _masks(good[0])
            if first is not None and masks.shape == first.shape:
                columns["Dice to first"][name] = mean_dice(masks, first)
            if self.setting.truth is not None and masks.shape == self.setting.truth.shape:
                columns.setdefault("Dice to truth", {})[name] = mean_dice(masks, self.setting.truth)
        return columns

    def remarks(self) -> list[str]:
        """What failed, and what rows say of themselves."""
        lines = []
        for name, found in self.found.items():
            lines += [f"{name}: {found[0]['about']}." for _ in range(1) if found and found[0].get("about")]
            lines += sorted({f"{name} failed: {one['error']}" for one in found if "error" in one})
        return lines


def _in_process_of_its_own(task: str, masks: Path, setting: Setting) -> dict[str, Any]:
    """Measure a task in a fresh process; a dictionary with ``error`` where it fails."""
    command = [sys.executable, str(SCRIPT), task, str(masks)]
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    try:
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=setting.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {setting.timeout:.0f} s"}
    lines = process.stdout.splitlines()
    if process.returncode != 0 or not lines:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"status {process.returncode}, {last}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _masks(found: Mapping[str, Any]) -> np.ndarray:
    with np.load(found["masks"]) as stored:
        shape = tuple(stored["shape"])
        return np.unpackbits(stored["packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)


def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of boolean regions (K, ...), averaged over them; 1 where both are empty."""
    scores = []
    for x, y in zip(a, b, strict=True):
        size = int(x.sum()) + int(y.sum())
        scores.append(2 * int((x & y).sum()) / size if size else 1.0)
    return float(np.mean(scores))


# Sections


def case_section(setting: Setting, contenders: Sequence[str] | None = None) -> Section:
    """A whole case with the same weights, and the bundle as it is shipped."""
    measured = Measured(setting)
    patch = " x ".join(map(str, setting.patch))
    zoo = " x ".join(map(str, setting.zoo_window))
    tasks = {
        f"MONAI {zoo}, overlap .5 (model zoo)": setting.task(
            "monai", {"roi_size": setting.zoo_window, "overlap": 0.5, "mode": "constant"}, keep_memory=False
        ),
        f"MONAI {patch}, overlap .5, gaussian": setting.task(
            "monai", {"roi_size": setting.patch, "overlap": 0.5, "mode": "gaussian"}, keep_memory=False
        ),
        f"nnU-Net {patch}, step .5, gaussian": setting.task("nnunet", {"patch": setting.patch}, keep_memory=False),
        "naive pass": setting.task("naive"),
        "ours": setting.task("ours"),
        "ours, half the memory": setting.task("ours", {"memory_budget": _half_budget(setting)}),
    }
    with_openvino = importlib.util.find_spec("openvino") is not None
    with_int8 = with_openvino and importlib.util.find_spec("nncf") is not None
    if with_openvino:
        tasks["OpenVINO"] = setting.task("openvino")
    if with_int8:
        tasks["OpenVINO int8"] = setting.task("openvino", {"int8": True})
    if setting.bundle is not None:
        shipped: dict[str, Any] = {
            "network": NetworkSetting(bundle=str(setting.bundle)),
            "image": str(raw_of(setting.image)),
        }
        tasks["bundle"] = setting.task("shipped", **shipped)
        for precision, amp in (("float32", False), ("bfloat16", True)):
            tasks[f"bundle in {precision}"] = setting.task("shipped", {"amp": amp}, **shipped)
        if with_openvino:
            tasks["bundle by OpenVINO"] = setting.task("shipped", {"openvino": True}, **shipped)
        if with_int8:
            tasks["bundle by OpenVINO int8"] = setting.task("shipped", {"openvino": True, "int8": True}, **shipped)
    chosen = [name for name in tasks if contenders is None or any(name.startswith(wanted) for wanted in contenders)]
    if not chosen:
        raise InputError("--contenders", " ".join(contenders or ()), "the first words of: " + "; ".join(tasks))
    rows = [measured.contender(name, tasks[name]) for name in chosen]
    return _section("Whole case, the same weights", rows, measured)


def ablation_section(setting: Setting) -> Section:
    """What each part of our window gives: the whole of it first, then with one thing changed."""
    measured = Measured(setting)
    tiles: dict[str, Any] = {"window": setting.patch}
    edge = " x ".join(map(str, setting.patch))
    rows: dict[str, dict[str, Any]] = {
        "ours": {},
        "without the box": {"crop": False},
        "in float32": {"amp": False},
        "in contiguous memory": {"channels_last": False},
        f"windows {edge}": tiles,
        f"windows {edge}, overlap .5": tiles | {"overlap": 0.5},
        f"windows {edge} of the whole volume": tiles | {"crop": False},
        "the same, with the empty ones": tiles | {"crop": False, "skip_empty": False},
        "mirrored along one axis": {"mirror_axes": (1,)},
    }
    tasks = {name: setting.task("ours", options) for name, options in rows.items()}
    return _section("What each part gives", [measured.contender(*item) for item in tasks.items()], measured)


def growth_sections(
    setting: Setting, sizes: Sequence[int], classes: Sequence[int], classes_size: int
) -> list[Callable[[], Section]]:
    """How time and memory grow with the volume, without air to leave out, and with the number of classes."""
    cases = [(size, setting.network.classes) for size in sizes] + [(classes_size, count) for count in classes]
    return [functools.partial(_growth_section, setting, size, count) for size, count in cases]


def _growth_section(setting: Setting, size: int, classes: int) -> Section:
    measured = Measured(setting)
    volume = setting.work / f"noise_{setting.network.channels}x{size}.npy"
    if not volume.is_file():
        rng = np.random.default_rng(size)
        np.save(volume, rng.standard_normal((setting.network.channels, *[size] * 3), dtype=np.float32))
    network = NetworkSetting(**asdict(setting.network) | {"classes": classes})
    edge = " x ".join(map(str, setting.patch))
    windows: dict[str, tuple[str, dict[str, Any]]] = {
        f"MONAI {edge}, overlap .5, gaussian": (
            "monai",
            {"roi_size": setting.patch, "overlap": 0.5, "mode": "gaussian"},
        ),
        "naive pass": ("naive", {}),
        "ours": ("ours", {}),
        "ours within 1 GiB": ("ours", {"memory_budget": 1.0}),
    }
    rows = [
        measured.contender(name, setting.task(window, options, image=str(volume), network=network))
        for name, (window, options) in windows.items()
    ]
    return _section(f"{size} x {size} x {size} without air, {classes} classes", rows, measured)


@torch.no_grad()
def _half_budget(setting: Setting) -> float:
    """GiB that make ours cut the box: half of what one pass takes, and the result."""
    image = torch.from_numpy(np.load(setting.image))
    probe = (round_up(32, 2 * setting.network.divisor),) * 3
    forward = Forward(setting.network.build(), torch.device("cpu"))
    footprint = MemoryBudget().footprint(len(image), probe, forward)
    crop, _, _ = _cropped(image[None], setting.network.divisor)
    return (footprint.window(crop[0, 0].numel()) / 2 + footprint.result(image[0].numel())) / GIB


def _section(title: str, rows: Sequence[Contender], measured: Measured) -> Section:
    setting = measured.setting
    network = setting.network
    stem = "" if network.stem_factor == 1 else f" behind a space-to-depth stem of {network.stem_factor}"
    weights = "random weights" if network.weights is None else network.weights
    where = "all in one process: memory means nothing" if setting.same_process else "each row a process of its own"
    return Section(
        title,
        "s",
        False,
        rows,
        (
            f"SegResNet-{network.filters}{stem}, {weights}; from normalised arrays to regions; {where}.",
            f"Of two calls the second counts where they are under {SHORT:.0f} s; the memory is the first's.",
        ),
        measured.columns,
        measured.remarks,
    )


# Volumes


def prepare_phantom(size: tuple[int, int, int], folder: Path) -> tuple[Path, np.ndarray | None]:
    """A skull-stripped head of 1 mm voxels: file of the normalised volume, and its regions."""
    from medseg_ext.layouts import BRATS_CHANNELS, regions_from_labels
    from medseg_ext.phantoms import make_phantom

    name = "x".join(map(str, size))
    image, truth = folder / f"phantom_{name}.npy", folder / f"phantom_{name}_regions.npy"
    if not (image.is_file() and truth.is_file()):
        spacing = tuple(edge / n for edge, n in zip((240.0, 240.0, 155.0), size, strict=True))
        phantom = make_phantom(0, size, spacing, BRATS_CHANNELS, kind="high", skull_stripped=True)  # type: ignore[arg-type]
        np.save(truth, regions_from_labels(phantom.label, "brats2017").astype(bool))
        _save_volumes(image, np.stack([phantom.images[sequence] for sequence in BRATS_CHANNELS]))
    return image, np.load(truth)


def prepare_case(case: Path, folder: Path, labels: bool) -> tuple[Path, np.ndarray | None]:
    """A real case in any layout: file of the normalised volume, and its regions where they are asked for."""
    from medseg_ext.layouts import BRATS_CHANNELS, BRATS_RULES, load_aligned, study_from_path

    study = study_from_path(case, channel_order=BRATS_CHANNELS, masks="optional", rules=BRATS_RULES)
    loaded = load_aligned(study, labels=labels)
    image = folder / f"{hashlib.sha256(str(case.resolve()).encode()).hexdigest()[:12]}.npy"
    if not image.is_file():
        _save_volumes(image, loaded.image)
    return image, None if loaded.regions is None else loaded.regions.astype(bool)


def raw_of(image: Path) -> Path:
    """The file of the arrays that a normalised volume was made of."""
    return image.with_name(f"{image.stem}_raw.npy")


def _save_volumes(image: Path, arrays: np.ndarray) -> None:
    np.save(raw_of(image), np.ascontiguousarray(arrays, dtype=np.float32))
    np.save(image, np.ascontiguousarray(ZScoreHead()(arrays), dtype=np.float32))


def find_case(data: Path | None) -> Path | None:
    """The first case with all four sequences in a folder of real patients, None where there is none."""
    cases = sorted(path for path in (data / "brats" / "cases").glob("*") if path.is_dir()) if data else []
    for case in cases:
        stems = {path.name.split(".")[0].rsplit("_", 1)[-1] for path in case.glob("*.nii*")}
        if {"t1", "t1ce", "t2", "flair"} <= stems:
            return case
    return None


def main(arguments: Sequence[str]) -> int:
    """Measure one task in this process: its JSON, then the file for its regions."""
    text, masks = arguments
    values = json.loads(text)
    task = Task(**values | {"network": NetworkSetting(**values["network"])})
    if task.keep_memory:
        keep_freed_memory()
    found = run_task(task, Path(masks))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
