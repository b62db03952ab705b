"""How far LGG slices lie from pieces of BraTS patients, sequence by sequence, as an encoder sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch.nn import functional
from tqdm import tqdm

from medseg_ext.errors import InputError
from medseg_ext.experiments.document import save_figure
from medseg_ext.experiments.study import People
from medseg_ext.experiments.study_report import DISTANCES
from medseg_ext.inferers.window.tiling import round_up
from medseg_ext.layouts import BRATS_CHANNELS, find_studies
from medseg_ext.metrics.discrepancy import (
    Array,
    maximum_mean_discrepancy,
    median_bandwidth,
    principal_components,
)
from medseg_ext.reports import write_json
from medseg_ext.training import read_pieces, whole_piece
from medseg_ext.workflow import load_weights
from medseg_ext.workflow.patients import as_items

LAYER = "backbone.bottleneck"
SLICES, TRAINED = "slices", "slices trained on"
_SLICES = 8  # a patient
#: What the slices' network is given where pieces have 1, see ``input_scale`` of ``transfer.yaml``.
PIECES_SCALE = 0.351


class Sample(NamedTuple):
    """Slices of one patient as the network is given them.

    Args:
        group: of slices, or the kind of piece. patient: who.
        image: (n, C, H, W). head: (n, H, W) bool.
        air: (C,), what lies outside. present: (C,), which sequences are there.
    """

    group: str
    patient: str
    image: torch.Tensor
    head: torch.Tensor
    air: torch.Tensor
    present: Sequence[bool]


class SliceEncoder:
    """A bundle's 2-D network as far as its bottleneck.

    Args:
        bundle: the LGG bundle. weights: of the network that ``twin.yaml`` makes.
        changes: named values of the config.
    """

    def __init__(self, bundle: Path, weights: Path, changes: Mapping[str, Any] | None = None) -> None:
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / name) for name in ("train.json", "twin.yaml")])
        parser.update(dict(changes or {}))
        self.channels: list[str] = list(parser["channel_order"])
        self.divisor = int(parser["stem_factor"]) * 2 ** (len(parser["features"]) - 1)
        self.preprocessing = parser.get_parsed_content("train::preprocessing")
        self.network: torch.nn.Module = parser.get_parsed_content("network_def")
        load_weights(self.network, weights, self.channels).eval()
        self.seen: list[torch.Tensor] = []
        self.network.get_submodule(LAYER).register_forward_hook(lambda _, __, output: self.seen.append(output))

    def __call__(self, sample: Sample, channel: int) -> Array:
        """Features (d,) of a patient, shown one sequence and 0 for the others: the mean over the head of all slices."""
        shown = torch.zeros_like(sample.image)
        shown[:, channel] = sample.image[:, channel]
        pad = [n for size in reversed(shown.shape[2:]) for n in (0, round_up(size, self.divisor) - size)]
        head = functional.pad(sample.head[:, None].float(), pad)
        shown = functional.pad(shown, pad)
        inside = functional.pad(torch.ones_like(sample.head), pad)
        shown[:, channel] = torch.where(inside, shown[:, channel], sample.air[channel])
        self.seen.clear()
        with torch.inference_mode():
            self.network(shown)
        features = self.seen[0].float()
        weight = functional.adaptive_avg_pool2d(head, (features.shape[2], features.shape[3]))
        return ((features * weight).sum((0, 2, 3)) / weight.sum()).double().numpy()


def slices_of_studies(folder: Path, groups: Mapping[str, Sequence[str]], encoder: SliceEncoder) -> Iterator[Sample]:
    """Slices of LGG patients, normalised as the network was trained with.

    A sequence that is a copy of FLAIR, as the set has them where one is missing, counts as missing.

    Args:
        folder: of the patients. groups: their names. encoder: what they are for.

    Raises:
        InputError: none of the patients is there.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    studies, _ = find_studies(folder, channel_order=encoder.channels, masks="required")
    chosen = [study for study in studies if study.patient in group_of]
    if not chosen:
        raise InputError(folder, "none of the split's patients", "the folder that the split is of")
    flair = encoder.channels.index("flair")
    for item in tqdm(as_items(chosen, labels=True), desc="slices", unit="patient"):
        image = encoder.preprocessing(item)["image"]
        image = torch.as_tensor(image).as_subclass(torch.Tensor).float()
        air = image.flatten(1).amin(1)
        head = (image > air.view(-1, 1, 1, 1)).any(0)
        kept = choose_slices(head.numpy())
        yield Sample(
            group_of[item["patient"]],
            item["patient"],
            image[..., kept].permute(3, 0, 1, 2),
            head[..., kept].permute(2, 0, 1),
            air,
            [i == flair or not torch.equal(channel, image[flair]) for i, channel in enumerate(image)],
        )


def slices_of_pieces(folder: Path, kinds: Sequence[str], encoder: SliceEncoder) -> Iterator[Sample]:
    """Slices of pieces, one piece a patient and kind, in the unit of the network.

    Raises:
        InputError: a piece is damaged, or there is none of these kinds.
    """
    order = [BRATS_CHANNELS.index(name) for name in encoder.channels]
    first = {(piece.kind, piece.patient): piece for piece in reversed(read_pieces(folder, kinds))}
    for (kind, patient), piece in tqdm(sorted(first.items()), desc="pieces", unit="piece"):
        item = whole_piece(piece)
        image = item["image"][order] * PIECES_SCALE
        head = (item["image"] != 0).any(0)
        kept = choose_slices(head.numpy())
        yield Sample(
            kind,
            patient,
            image[..., kept].permute(3, 0, 1, 2),
            head[..., kept].permute(2, 0, 1),
            torch.zeros(len(order)),
            [bool(piece.present[i]) for i in order],
        )


def choose_slices(head: np.ndarray, count: int = _SLICES) -> list[int]:
    """Slices evenly spread over those with at least half as much head as the fullest.

    Args:
        head: (H, W, D) bool, not empty.
        count: as many at the most.
    """
    areas = head.sum((0, 1))
    full = np.flatnonzero(areas * 2 >= areas.max())
    places = np.linspace(0, full.size - 1, min(count, full.size)).round().astype(int)
    chosen: list[int] = full[places].tolist()
    return chosen


def measure_distance(
    bundle: Path,
    weights: Path,
    lgg: Path,
    trained: Sequence[str],
    unseen: Sequence[str],
    pieces: Path,
    kinds: Sequence[str],
    people: People,
    output: Path,
    permutations: int = 1000,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``distances.json`` and ``figures/features.png``, which the study's report shows.

    Args:
        bundle: the LGG bundle. weights: of its twin.
        lgg: folder of its patients. trained: those whom the twin was trained on, which are set beside the others to
            tell what that alone makes. unseen: those who are compared with the pieces.
        pieces: folder of pieces. kinds: of pieces, each compared by itself.
        people: who is in both: they count among the pieces alone, for the samples have to be independent.
        output: folder. permutations: of the test. changes: named values of the network's config.

    Raises:
        InputError: a set without patients, or fewer than two on a side.
    """
    encoder = SliceEncoder(bundle, weights, changes)
    packed = list(slices_of_pieces(pieces, kinds, encoder))
    among = {sample.patient for sample in packed}
    groups_of_slices = {SLICES: people.lgg_alone(unseen, among), TRAINED: people.lgg_alone(trained, among)}
    samples = [*slices_of_studies(lgg, groups_of_slices, encoder), *packed]
    distances, clouds = [], {}
    for channel, sequence in enumerate(encoder.channels):
        there = [sample for sample in samples if sample.present[channel]]
        features = np.stack([encoder(sample, channel) for sample in there])
        features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
        groups = np.array([sample.group for sample in there])
        clouds[sequence] = (groups, *principal_components(features))
        # one for all, or the distances of a sequence could not be compared
        bandwidth = median_bandwidth(features)
        for other in (TRAINED, *kinds):
            if min((groups == SLICES).sum(), (groups == other).sum()) < 2:
                continue
            found = maximum_mean_discrepancy(
                features[groups == SLICES], features[groups == other], bandwidth, permutations
            )
            distances.append({"sequence": sequence, "other": other, **found._asdict()})
    if not any(d["other"] != TRAINED for d in distances):
        raise InputError(pieces, "fewer than two patients of any kind with a sequence", "two or more")
    picture = _draw(output / "figures" / "features.png", clouds)
    left_out = len({*trained, *unseen}) - sum(map(len, groups_of_slices.values()))
    note = (
        f"Features of the 2-D network trained on LGG slices, at its bottleneck, the mean over the head of {_SLICES} "
        "slices a patient, who is shown one sequence at a time; each feature brought to mean 0 and deviation 1 over "
        "all. Squared maximum mean discrepancy from LGG slices that the network was not trained on, unbiased (Gretton "
        "et al. 2012), Gaussian kernel whose bandwidth is the median distance of all patients of the sequence; p by "
        f"{permutations} permutations of patients. {left_out} LGG patients who are among the pieces too are left out "
        "of the slices."
    )
    content = {"note": note, "distances": distances, "picture": picture.relative_to(output).as_posix()}
    return write_json(content, output / DISTANCES)


def _draw(path: Path, clouds: Mapping[str, tuple[np.ndarray, Array, Array]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(clouds), 4), layout="constrained")
    panels = figure.subplots(1, len(clouds), squeeze=False)[0]
    for axes, (sequence, (groups, places, shares)) in zip(panels, clouds.items(), strict=True):
        for group in dict.fromkeys(groups):
            chosen = places[groups == group]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=10, alpha=0.7, label=f"{group} ({len(chosen)})")
        axes.set_title(sequence)
        axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
        axes.legend(fontsize=8)
    return save_figure(figure, path)
