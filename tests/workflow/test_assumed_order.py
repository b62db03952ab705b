"""What channels without names are taken for is said at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_ext.layouts import Study
from medseg_ext.workflow.patients import print_assumed_order

ORDER = ("t1", "t1ce", "t2", "flair")


def study(layout: str, sequences: tuple[str, ...] = ()) -> Study:
    return Study(patient="p", layout=layout, folder=Path(), images=(Path("p"),), sequences=sequences)


@pytest.mark.parametrize(
    ("studies", "said"),
    [
        ([study("nifti-stack")], "channels of 4-D NIfTI files: t1, t1ce, t2, flair\n"),
        # raw folders of nnU-Net without dataset.json
        ([study("nnunet")] * 2, "channels _0000, _0001, ... of nnU-Net's files: t1, t1ce, t2, flair\n"),
        ([study("nnunet", ORDER), study("nifti", ORDER), study("kaggle")], ""),
    ],
)
def test_only_where_nothing_names_them(studies: list[Study], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_assumed_order(studies, ORDER)
    assert capsys.readouterr().out == said
