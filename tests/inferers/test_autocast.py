"""When mixed precision is taken."""

from __future__ import annotations

import pytest
import torch

from medseg_ext.inferers import bfloat16_pays_in_3d


@pytest.mark.parametrize("tiles", [False, True])
def test_on_a_processor_3d_takes_tiles_for_bfloat16_to_pay(monkeypatch: pytest.MonkeyPatch, tiles: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert bfloat16_pays_in_3d(torch.device("cpu")) is tiles
    assert bfloat16_pays_in_3d("cuda:0")


def test_float32_where_torch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not bfloat16_pays_in_3d("cpu")
