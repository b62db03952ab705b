"""Networks that start as another one: what they say, what they keep, what is refused, what is reported."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.networks.nets import UNet
from torch import nn
from twins import unet, with_statistics

from medseg_ext.errors import InputError
from medseg_ext.transfer import WeightInitializer, transfer_weights

LGG, BRATS = ("t1", "flair", "t1ce"), ("t1", "t1ce", "t2", "flair")
REGIONS = ("tc", "wt", "et")
ENCODER = [r"backbone\.(input_block|downsamples|bottleneck)"]


def saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def test_the_same_network_is_loaded_whole(tmp_path: Path) -> None:
    source, network = unet(2, 3, 1, seed=1), unet(2, 3, 1, seed=2)
    report = transfer_weights(network, saved(source, tmp_path / "a.pt"))
    assert report.share == report.share_of_network == 1
    assert {row.outcome for row in report.rows} == {"loaded"}
    assert len(report.rows) == len([*network.parameters(), *network.buffers()]), "each tensor once, whatever its names"
    for name, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


@pytest.mark.parametrize("inflation", ["centred", "averaged"])
@pytest.mark.parametrize("factor", [1, 2])
def test_inflated_it_says_the_same_where_slices_are_alike(factor: int, inflation: str, tmp_path: Path) -> None:
    flat, deep = unet(2, 3, 2, factor, seed=1).double(), unet(3, 3, 2, factor, seed=2).double()
    report = transfer_weights(
        deep,
        saved(flat, tmp_path / "flat.pt"),
        channels=LGG,
        source_channels=LGG,
        regions=("wt", "et"),
        source_regions=("wt", "et"),
        inflation=inflation,
    )
    assert report.share == 1 and not report.of("fresh") and not report.of("unused")
    picture = torch.randn(1, 3, 16, 16).double()
    with torch.no_grad():
        wanted, found = flat(picture), deep(picture[..., None].expand(1, 3, 16, 16, 112))
    middle = found[..., 48:64]  # the border of a volume reaches as far as the kernels of the lowest level do
    torch.testing.assert_close(middle, wanted[..., None].expand_as(middle), atol=1e-9, rtol=1e-9)


def test_flattened_it_says_the_same_where_slices_are_alike(tmp_path: Path) -> None:
    flat, deep = unet(2, 3, 2, seed=1), unet(3, 3, 2, seed=2)
    names: dict[str, Any] = {
        "channels": LGG,
        "source_channels": LGG,
        "regions": ("a", "b"),
        "source_regions": ("a", "b"),
    }
    # a network that is alike in all slices, or the sum could not say the same as each of them
    transfer_weights(deep, saved(flat, tmp_path / "flat.pt"), **names)
    back = unet(2, 3, 2, seed=3)
    transfer_weights(back, saved(deep, tmp_path / "deep.pt"), **names)
    for name, value in flat.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value)


def test_flattened_pointwise_network_is_exact(tmp_path: Path) -> None:
    def made(convolution: type[nn.Module]) -> nn.Module:
        return nn.Sequential(convolution(3, 4, 3, padding=1), nn.ReLU(), convolution(4, 2, 1))

    torch.manual_seed(0)
    deep, flat = made(nn.Conv3d), made(nn.Conv2d)
    transfer_weights(flat, saved(deep, tmp_path / "deep.pt"))
    picture = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        found = deep(picture[..., None].expand(1, 3, 8, 8, 7))[..., 3]
        torch.testing.assert_close(flat(picture), found)


def test_regions_by_name_and_new_ones_fresh(tmp_path: Path) -> None:
    flat, deep = unet(2, 3, 1, seed=1), unet(3, 4, 3, seed=2)
    before = copy.deepcopy(deep.state_dict())
    report = transfer_weights(
        deep,
        saved(flat, tmp_path / "flat.pt"),
        channels=BRATS,
        source_channels=LGG,
        regions=REGIONS,
        source_regions=("wt",),
    )
    theirs, ours = flat.backbone.output_block.conv.conv, deep.backbone.output_block.conv.conv
    for place in range(8):  # a block is (row, column, slice) here and (row, column) there
        assert torch.equal(ours.weight[8 + place, :, 0, 0, 0], theirs.weight[place // 2, :, 0, 0])
        assert torch.equal(ours.bias[8 + place], theirs.bias[place // 2])
    fresh = torch.cat([torch.arange(8), torch.arange(16, 24)])
    for part in ("weight", "bias"):
        assert torch.equal(getattr(ours, part)[fresh], before[f"backbone.output_block.conv.conv.{part}"][fresh])
    (row,) = [row for row in report.rows if row.name == "backbone.output_block.conv.conv.bias"]
    assert (row.outcome, row.filled, row.values) == ("adapted", 8, 24)
    assert report.share < 1


def test_an_encoder_alone(tmp_path: Path) -> None:
    flat, deep = unet(2, 3, 1, seed=1), unet(3, 4, 3, seed=2)
    before = copy.deepcopy(deep.state_dict())
    report = transfer_weights(
        deep,
        saved(flat, tmp_path / "flat.pt"),
        channels=BRATS,
        source_channels=LGG,
        layers=ENCODER,
        least_share=1.0,
    )
    assert report.share == 1 > report.share_of_network
    for name, value in deep.state_dict().items():
        same = torch.equal(value, before[name])
        if "upsample" in name or "output_block" in name:
            assert same, name
        elif name.endswith(".weight") and "skip_layers" not in name:
            assert not same, name
    assert {row.how for row in report.of("fresh")} == {"not one of the layers asked for"}


def test_a_shipped_order_of_channels_is_not_mixed_up(tmp_path: Path) -> None:
    """As many channels in another order: what was trained on FLAIR still sees FLAIR."""
    source, network = unet(2, 3, 1, seed=1), unet(2, 3, 1, seed=2)
    order = ("flair", "t1ce", "t1")
    transfer_weights(network, saved(source, tmp_path / "a.pt"), channels=order, source_channels=LGG)
    picture = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(picture[:, [1, 2, 0]]), source(picture))


def test_inputs_in_another_unit(tmp_path: Path) -> None:
    source, network = unet(2, 3, 1, seed=1), unet(2, 3, 1, seed=2)
    report = transfer_weights(network, saved(source, tmp_path / "a.pt"), input_scale=4.0)
    assert [row.how for row in report.of("adapted")] == ["times 4"]
    picture = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(picture), source(picture * 4))


def test_slices_beside_become_the_slice(tmp_path: Path) -> None:
    """Weights of three slices side by side for a network of one."""
    source, network = nn.Conv2d(9, 2, 3), nn.Conv2d(3, 2, 3)
    transfer_weights(nn.Sequential(network), saved(nn.Sequential(source), tmp_path / "a.pt"), channels=LGG,
                     source_channels=LGG)  # fmt: skip
    torch.testing.assert_close(network.weight, source.weight.unflatten(1, (3, 3)).sum(1))


def test_pairs_of_monai(tmp_path: Path) -> None:
    def made(dims: int, **more: Any) -> UNet:
        return UNet(dims, 2, 2, (4, 8, 8), (2, 2), norm="batch", **more)

    torch.manual_seed(0)
    flat, deep = with_statistics(made(2)), made(3).eval()
    report = transfer_weights(deep, saved(flat, tmp_path / "flat.pt"), least_share=1.0)
    assert report.share == 1
    picture = torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        found = deep(picture[..., None].expand(1, 2, 16, 16, 48))[..., 20:28]
        torch.testing.assert_close(found, flat(picture)[..., None].expand_as(found), atol=1e-4, rtol=1e-4)


def test_renamed_wrapped_and_wider(tmp_path: Path) -> None:
    source = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 1, 1))
    state = {f"module.stage{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 1, "model": {**state, "module.extra": torch.ones(3)}}, tmp_path / "a.pt")
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 1, 1))
    report = transfer_weights(network, tmp_path / "a.pt", rename={r"module\.stage": ""}, least_share=0.1)
    assert torch.equal(network[0].weight, source[0].weight)
    outcomes = {row.name: (row.outcome, row.how) for row in report.rows}
    assert outcomes["1.weight"] == ("fresh", "of another shape (4x4x3x3 in the source, 6x4x3x3 here)")
    assert outcomes["module.extra"] == ("unused", "no such tensor in the network")
    assert outcomes["module.stage1.weight"][0] == "unused"
    assert report.share == pytest.approx((76 + 1) / (76 + 222 + 7))


def test_other_numbers_of_channels_without_names(tmp_path: Path) -> None:
    source, network = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)
    path = saved(nn.Sequential(source, nn.Conv2d(2, 2, 1)), tmp_path / "a.pt")
    whole = nn.Sequential(network, nn.Conv2d(2, 2, 1))
    assert transfer_weights(whole, path, least_share=0).rows[0].how.startswith("other sequences: name them")
    transfer_weights(whole, path, inputs="mean")
    torch.testing.assert_close(network.weight.sum(1), source.weight.sum(1))


def test_float16_and_buffers(tmp_path: Path) -> None:
    source, network = unet(2, 3, 1, seed=1), unet(2, 3, 1, seed=2)
    saved(source.half(), tmp_path / "a.pt")
    transfer_weights(network, tmp_path / "a.pt", channels=LGG, source_channels=LGG)
    assert network.backbone.input_block.norm1.running_mean.dtype == torch.float32
    assert torch.equal(network.backbone.input_block.norm1.running_mean.half(),
                       source.backbone.input_block.norm1.running_mean)  # fmt: skip


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "share": ({"least_share": 0.99}, r"found weights for \d\d\.\d% of the parameters, e.g. .*, allowed 99% or more"),
    "digest": ({"sha256": "1" * 64}, "a.pt: found SHA-256"),
    "inputs": ({"inputs": "max"}, "inputs: found 'max', allowed 'name' or 'mean' or 'repeat'"),
    "inflation": ({"inflation": "x"}, "inflation: found 'x'"),
    "flattening": ({"flattening": "x"}, "flattening: found 'x'"),
    "scale": ({"input_scale": 0.0}, "input_scale: found 0.0, allowed a number above 0"),
    "layers": ({"layers": ["backbon.x"]}, "layers: found 'backbon.x', with which no name begins, allowed one of back"),
    "expression": ({"layers": ["("]}, "layers: found '\\('"),
    "names": ({"source_channels": ()}, "a.pt: found weights that do not say of which sequences"),
    "rename": ({"rename": {"nothing": ""}}, "rename: found 'nothing': '.?', which changes no name"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_and_left_as_it_was(what: str, tmp_path: Path) -> None:
    options, message = BAD[what]
    path = saved(unet(2, 3, 1, seed=1), tmp_path / "a.pt")
    network = unet(3, 4, 3, seed=2)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=message) as caught:
        transfer_weights(network, path, **({"channels": BRATS, "source_channels": LGG, "regions": REGIONS} | options))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_another_architecture(tmp_path: Path) -> None:
    path = saved(UNet(2, 3, 1, (4, 8), (2,)), tmp_path / "unet.pt")
    with pytest.raises(InputError, match=r"unet.pt: found weights for 0\.0% of the parameters"):
        transfer_weights(unet(2, 3, 1), path, least_share=0)


# as a component


def test_component(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, network = unet(2, 3, 1, seed=1), unet(3, 3, 1, seed=2)
    average = copy.deepcopy(network)
    component = WeightInitializer(
        network,
        saved(source, tmp_path / "a.pt"),
        copies=[average],
        output_dir=tmp_path / "out",
        channels=LGG,
        source_channels=LGG,
        regions=["wt"],
        source_regions=["wt"],
    )
    report = component()
    assert report is component.report is not None
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), network.parameters(), strict=True))
    printed = capsys.readouterr().out
    assert "100.0% of the parameters asked for" in printed and "inflated, centred" in printed
    with (tmp_path / "out" / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report.rows)
    assert {row["outcome"] for row in rows} == {"loaded", "adapted"}
    assert sum(int(row["filled"]) for row in rows if row["parameter"] == "True") == sum(
        p.numel() for p in network.parameters()
    )


def test_nothing_to_start_from(tmp_path: Path) -> None:
    component = WeightInitializer(unet(2, 3, 1), "", output_dir=tmp_path)
    assert component() is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("resumed", [False, True])
def test_as_a_handler(resumed: bool, tmp_path: Path) -> None:
    source, network = unet(2, 3, 1, seed=1), unet(2, 3, 1, seed=2)
    before = copy.deepcopy(network.state_dict())
    engine = Engine(lambda engine, batch: None)
    if resumed:
        engine.load_state_dict({"epoch_length": 1, "max_epochs": 2, "iteration": 1})
    WeightInitializer(network, saved(source, tmp_path / "a.pt"), quiet=True).attach(engine)
    engine.run([0], max_epochs=2)
    wanted = before if resumed else source.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())


def test_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        WeightInitializer(unet(2, 3, 1), tmp_path / "gone.pt")()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'gone.pt'}: found nothing there, allowed a bundle's folder or zip")


def test_tensors_of_odd_shapes_under_the_same_names(tmp_path: Path) -> None:
    """Numbers, vectors and matrices where kernels belong."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 1, 1))
    state = {
        "0.weight": torch.ones(2),
        "0.bias": torch.tensor(1.0),
        "1.weight": torch.ones(2, 2),
        "1.bias": torch.ones(2),
    }
    state |= {"2.weight": torch.ones(1, 2, 1, 1, 1, 1), "2.bias": torch.ones(1, 1)}
    torch.save(state, tmp_path / "a.pt")
    report = transfer_weights(network, tmp_path / "a.pt", least_share=0, channels=LGG, source_channels=LGG)
    assert {row.name for row in report.of("loaded")} == {"1.bias"}
    assert {row.name for row in report.of("fresh")} == {"0.weight", "0.bias", "1.weight", "2.weight", "2.bias"}


def test_buffers_that_are_not_saved_are_left_out(tmp_path: Path) -> None:
    source, network = nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Sequential(nn.Conv2d(1, 1, 1))
    network.register_buffer("table", torch.ones(3), persistent=False)
    report = transfer_weights(network, saved(source, tmp_path / "a.pt"))
    assert [row.name for row in report.rows] == ["0.weight", "0.bias"]


def test_several_first_convolutions(tmp_path: Path) -> None:
    """A shortcut beside the first block takes the image too."""
    torch.manual_seed(0)
    flat = UNet(2, 3, 1, (4, 8), (2,), num_res_units=1)
    network = UNet(2, 4, 1, (4, 8), (2,), num_res_units=1)
    path = saved(flat, tmp_path / "a.pt")
    names: dict[str, Any] = {"channels": BRATS, "source_channels": LGG, "least_share": 0}
    fresh = {row.name for row in transfer_weights(network, path, **names).of("fresh")}
    assert fresh == {"model.0.residual.weight"}
    both = [r"model\.0\.(residual|conv\.unit0\.conv)"]
    assert not transfer_weights(network, path, **names, input_layers=both).of("fresh")
