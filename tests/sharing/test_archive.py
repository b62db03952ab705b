"""Archives that are the same bytes every time, and ones that are read with care."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from attacks import harmless, write_archive, write_folder

from medseg_ext.errors import InputError
from medseg_ext.sharing.archive import open_bundle, write_zip, write_zip_in_order


def test_bytes_depend_on_names_and_contents_alone() -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    write_zip(streams[0], {"b": b"2", "a/x": b"1"})
    write_zip(streams[1], {"a/x": b"1", "b": b"2"})
    assert streams[0].getvalue() == streams[1].getvalue()
    with zipfile.ZipFile(streams[0]) as archive:
        assert archive.namelist() == ["a/x", "b"]
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize("alignment", [1, 64])
def test_alignment(alignment: int) -> None:
    stream = io.BytesIO()
    write_zip_in_order(stream, [("x", b"marker"), ("yy", b"second")], alignment=alignment)
    assert stream.getvalue().index(b"marker") % alignment == 0
    assert stream.getvalue().index(b"second") % alignment == 0
    with zipfile.ZipFile(stream) as archive:
        assert archive.testzip() is None


def test_folder_and_archive_are_alike(tmp_path: Path) -> None:
    for path in (write_folder(harmless(), tmp_path), write_archive(harmless(), tmp_path)):
        with open_bundle(path) as bundle:
            assert (bundle.name, bundle.findings) == ("victim", [])
            assert {name: bundle.read(name) for name in bundle.sizes} == harmless()


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    (tmp_path / "link").symlink_to(tmp_path)
    for name, found in (("nothing", "nothing"), ("x.zip", "no readable zip"), ("link", "a link")):
        with pytest.raises(InputError, match=found), open_bundle(tmp_path / name):
            pass
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="found no file"), open_bundle(tmp_path / "pipe"):
            pass
