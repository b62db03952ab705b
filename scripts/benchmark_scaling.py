"""A bundle's training step in one process and in several: throughput, what communication costs, and a projection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmark_brats import PeakMemory
from benchmark_lgg import read_config
from benchmark_tools import Contender, Section
from torch import nn

from medseg_ext.errors import InputError
from medseg_ext.files import read_json, write_atomically, write_beside
from medseg_ext.processes import gather_objects
from medseg_ext.training import keep_freed_memory
from medseg_ext.workflow import join_processes, launched, process_device
from medseg_ext.workflow.run import one_line_errors

SCRIPT = Path(__file__).resolve()
WARM_UP_STEPS = 2
REDUCTIONS = 10  # of which the median is taken
GIB = 2**30


@dataclass(frozen=True)
class Task:
    """What each process of a measurement does.

    Args:
        bundle: the bundle's folder.
        folder: empty, on a disk that all processes see; they meet there, and the first one writes ``result.json``.
        batch_size: samples of a process and step; 0 for the config's.
        steps: timed steps of each kind.
        threads: of each process.
        trace: file for a profiler's trace of one step; empty for none.
        timeout: seconds.
    """

    bundle: str
    folder: str
    batch_size: int = 0
    steps: int = 10
    threads: int = 1
    trace: str = ""
    timeout: float = 600.0


@dataclass(frozen=True)
class Found:
    """What a measurement found.

    Args:
        processes: how many there were.
        batch_size: samples of a process and step.
        shape: of a sample.
        step: seconds of a step, the slowest process's median.
        alone: the same without any communication, the processes side by side nevertheless.
        peak_bytes: most memory of a process.
        gradient_bytes: what the processes exchange a step.
        latency: seconds to exchange one number. bandwidth: bytes a second beyond that; 0 with one process.
    """

    processes: int
    batch_size: int
    shape: Sequence[int]
    step: float
    alone: float
    peak_bytes: int
    gradient_bytes: int
    latency: float = 0.0
    bandwidth: float = 0.0

    @property
    def rate(self) -> float:
        """Samples a second of all processes."""
        return self.processes * self.batch_size / self.step

    @property
    def communication(self) -> float:
        """Share of a step by which communication lengthens it."""
        return max(0.0, 1 - self.alone / self.step)


# One process of a measurement


def measure_process(task: Task) -> Found | None:
    """Measure as one of the processes that torchrun started.

    Returns:
        What all of them found, on the first one; None elsewhere.
    """
    rank, world_size, device = launched("RANK"), launched("WORLD_SIZE"), process_device()
    torch.set_num_threads(task.threads)
    keep_freed_memory()
    parser = read_config(Path(task.bundle), "train.json")
    parser["device"] = device
    parser["batch_size"] = task.batch_size or parser["batch_size"]
    parser.parse(True)
    network, loss, optimizer, inferer, batch_size, augmentation = (
        parser.get_parsed_content(name)
        for name in ("network", "loss", "optimizer", "train::inferer", "batch_size", "augmentation")
    )
    metadata = read_json(Path(task.bundle) / "configs" / "metadata.json", "a bundle's metadata")
    channels = int(metadata["network_data_format"]["inputs"]["image"]["num_channels"])
    generator = torch.Generator().manual_seed(rank)
    shape = (channels, *augmentation.size)
    image = torch.randn(batch_size, *shape, generator=generator).to(device)
    network.train()
    with torch.no_grad():
        truth_shape = inferer(image, network).shape
    truth = (torch.rand(truth_shape, generator=generator) < 0.05).float().to(device)

    def step(module: nn.Module) -> None:
        optimizer.zero_grad()
        loss(inferer(image, module), truth).backward()
        optimizer.step()

    with PeakMemory(device) as memory:
        _wait_for_others(Path(task.folder), rank, world_size, task.timeout)
        alone = _median_seconds(lambda: step(network), task.steps, device)
        if world_size > 1:
            # only now, so that neither network nor loss could communicate before
            join_processes(device, task.timeout / 60)
            parallel: nn.Module = nn.parallel.DistributedDataParallel(
                network, device_ids=[device] if device.type == "cuda" else None
            )
            together = _median_seconds(lambda: step(parallel), task.steps, device)
        else:
            parallel, together = network, alone
    gradient_bytes = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    peak = memory.peak
    if task.trace:
        _trace(lambda: step(parallel), Path(task.trace) if rank == 0 else None, device)
    if world_size == 1:
        return Found(1, batch_size, shape, together, alone, peak, gradient_bytes)
    # of each figure the slowest, or largest, process's
    together, alone, peak = (max(values) for values in zip(*gather_objects((together, alone, peak)), strict=True))
    latency, bandwidth = _exchange_costs(gradient_bytes, device)
    gather_objects(None)  # nobody leaves while another still exchanges
    found = Found(world_size, batch_size, shape, together, alone, peak, gradient_bytes, latency, bandwidth)
    return found if rank == 0 else None


def _wait_for_others(folder: Path, rank: int, world_size: int, timeout: float) -> None:
    """Begin together, or the first to be ready would be timed with the machine to itself."""
    (folder / f"ready_{rank}").touch()
    deadline = time.monotonic() + timeout
    while len(list(folder.glob("ready_*"))) < world_size:
        if time.monotonic() > deadline:
            raise InputError(folder, "fewer processes than were started", f"{world_size}")
        time.sleep(0.01)


def _median_seconds(function: Callable[[], Any], count: int, device: torch.device) -> float:
    """Median time of calls after the warm-up."""
    seconds = []
    for _ in range(WARM_UP_STEPS + count):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return median(seconds[WARM_UP_STEPS:])


def _exchange_costs(gradient_bytes: int, device: torch.device) -> tuple[float, float]:
    """Seconds to add up one number over the processes, and bytes a second of a tensor as large as the gradients."""
    small, large = torch.ones(1, device=device), torch.ones(max(gradient_bytes // 4, 2), device=device)
    latency, seconds = (
        _median_seconds(lambda tensor=tensor: torch.distributed.all_reduce(tensor), REDUCTIONS, device)  # type: ignore[misc]
        for tensor in (small, large)
    )
    return latency, (large.numel() - 1) * 4 / max(seconds - latency, 1e-9)


def _trace(step: Callable[[], None], path: Path | None, device: torch.device) -> None:
    """Write one step's trace, which chrome://tracing and Perfetto show; without a path take part only."""
    if path is None:
        step()
        return
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities, profile_memory=True) as profiler:
        step()
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as part:
        profiler.export_chrome_trace(str(part))


# All processes of a measurement


@dataclass
class Setting:
    """What the sections share.

    Args:
        task: what each process does, but for its folder.
        scratch: folder for theirs.
        processes: how many, each a row; 1 comes first.
        found: by number of processes, a measurement a round.
    """

    task: Task
    scratch: Path
    processes: Sequence[int] = (1, 2)
    found: dict[int, list[Found]] = field(default_factory=dict)

    def measure(self, count: int) -> Found:
        """Start that many processes and note what they find.

        Raises:
            InputError: they fail, or take too long.
        """
        rounds = self.found.setdefault(count, [])
        folder = self.scratch / f"{count}_processes_{len(rounds)}"
        folder.mkdir(parents=True)
        trace = self.task.trace if count == max(self.processes) and not rounds else ""
        task = asdict(self.task) | {"folder": str(folder), "trace": trace}
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        command = [*launcher, str(SCRIPT), json.dumps(task)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.task.threads)}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=2 * self.task.timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(name_of(count), f"not done in {error.timeout:.0f} s", "a longer --timeout") from None
        result = folder / "result.json"
        if done.returncode or not result.exists():
            lines = done.stderr.strip().splitlines() or ["no message"]
            said = next((line for line in lines if line.startswith("error: ")), lines[-1])
            raise InputError(name_of(count), f"status {done.returncode} ({said[:300]})", "a step without an error")
        rounds.append(Found(**json.loads(result.read_text())))
        return rounds[-1]

    def typical(self, count: int) -> Found:
        """The round of median throughput."""
        rounds = sorted(self.found[count], key=lambda found: found.rate)
        return rounds[len(rounds) // 2]


def name_of(count: int) -> str:
    """A row's name."""
    return f"{count} process" + ("es" if count > 1 else "")


def measured_section(setting: Setting) -> Section:
    """Throughput of one process and of several, each with a batch of the same size."""

    def columns() -> Mapping[str, Mapping[str, float]]:
        typical = {count: setting.typical(count) for count in setting.processes}
        base = typical[1].rate
        return {
            "efficiency": {name_of(n): found.rate / (n * base) for n, found in typical.items()},
            "step ms": {name_of(n): 1000 * found.step for n, found in typical.items()},
            "communication": {name_of(n): found.communication for n, found in typical.items()},
            "peak GiB": {name_of(n): found.peak_bytes / GIB for n, found in typical.items()},
        }

    def remarks() -> list[str]:
        found = setting.typical(max(setting.processes))
        shape = " x ".join(map(str, found.shape))
        lines = [f"A step of a process: {found.batch_size} random samples of {shape}; loading is left out."]
        if found.processes > 1:
            lines.append(
                f"Gradients: {found.gradient_bytes / 2**20:.1f} MiB, exchanged at {found.bandwidth / 2**20:.0f} MiB/s"
                f" after {1e6 * found.latency:.0f} us."
            )
        if setting.task.trace:
            lines.append(f"Trace of one step: {setting.task.trace}")
        return lines

    return Section(
        "Training step, as many samples a process",
        "samples/s",
        True,
        [Contender(name_of(n), lambda n=n: setting.measure(n).rate) for n in setting.processes],  # type: ignore[misc]
        (
            f"{setting.task.threads} thread(s) a process; {setting.task.steps} timed steps a round.",
            "efficiency: throughput over that of as many single processes.",
            "communication: share of the step that is gone without it, processes side by side all the same.",
            "peak: of one process, the largest.",
        ),
        columns,
        remarks,
    )


def projected_step(one: Found, two: Found, count: int) -> float:
    """Seconds of a step of more processes than were measured, from the measured times of one and of two.

    The step of one process, which has as many cores to itself, and after it, overlapped by nothing, an all-reduce by a
    ring: ``2 (W - 1)`` messages one after the other, each with the ``W``-th part of the gradients (Patarasuk and Yuan
    2009, https://doi.org/10.1016/j.jpdc.2008.09.002). Two processes' latency and bandwidth are those of all.

    Args:
        one: measured with one process. two: with two or more, for latency and bandwidth. count: processes ``W``.
    """
    exchange = (count - 1) * two.latency + 2 * (count - 1) / count * two.gradient_bytes / two.bandwidth
    return one.step + exchange


def projected_section(setting: Setting, counts: Sequence[int]) -> Section:
    """Throughput of more processes, computed from what the first section measured."""
    one, two = setting.typical(1), setting.typical(2)
    steps = {count: projected_step(one, two, count) if count > 1 else one.step for count in (1, 2, *counts)}
    rates = {count: count * one.batch_size / step for count, step in steps.items()}
    columns = {
        "efficiency": {name_of(n): rate / (n * rates[1]) for n, rate in rates.items()},
        "step ms": {name_of(n): 1000 * step for n, step in steps.items()},
        "communication": {name_of(n): 1 - one.step / step for n, step in steps.items()},
    }
    return Section(
        "PROJECTION: computed from the measured step, latency and bandwidth, not measured",
        "samples/s",
        True,
        [Contender(name_of(n), lambda rate=rate: rate) for n, rate in rates.items()],  # type: ignore[misc]
        (
            "Model: the step of one process, then a ring all-reduce of the gradients that nothing overlaps; every",
            "process has cores of its own, and all links are as fast as the one between the two measured.",
            f"Of 2 processes {two.rate:.3g} samples/s were measured, and the model says {rates[2]:.3g}.",
        ),
        lambda: columns,
    )


@one_line_errors
def main(arguments: Sequence[str]) -> int:
    """One process of a measurement, started by torchrun."""
    task = Task(**json.loads(arguments[0]))
    found = measure_process(task)
    if found is not None:
        write_atomically(Path(task.folder) / "result.json", json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
