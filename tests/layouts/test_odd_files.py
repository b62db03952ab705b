"""Files that are none, headers that cannot be right, names that are no text: an error each, the others are read."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import nibabel
import numpy as np
import pytest
from study_files import (
    random_patient,
    save,
    store,
    write_nnunet,
    write_png16,
    write_sequences,
    write_slices,
    write_stack,
)

from medseg_ext.errors import InputError, as_input_error, blaming, escaped
from medseg_ext.files import read_json, write_atomically
from medseg_ext.layouts import (
    BRATS_RULES,
    LGG_RULES,
    PatientError,
    Study,
    find_studies,
    load_aligned,
    load_study,
    read_split,
    study_from_path,
    write_mask,
)
from medseg_ext.layouts.volumes import open_volume, read_volume


def found_in(root: Path, **options) -> tuple[dict[str, Study], dict[str, str]]:
    """Studies that load, and errors, by patient."""
    studies, errors = find_studies(root, **options)
    good = {}
    for study in studies:
        try:
            load_study(study)
        except PatientError as error:
            errors.append(error)
        else:
            good[study.patient] = study
    for error in errors:
        assert "\n" not in str(error)
        assert ", allowed " in str(error)
    return good, {getattr(error, "patient", ""): str(error) for error in errors}


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """A folder with one whole stack, ``good``, beside which others are put."""
    write_stack(tmp_path / "data" / "good.nii.gz", random_patient()[0])
    return tmp_path / "data"


def with_header(path: Path, **values: object) -> Path:
    """A stack whose uncompressed header holds other values."""
    write_stack(path, random_patient()[0], axcodes="RAS")
    header = np.frombuffer(bytearray(path.read_bytes()[:348]), nibabel.Nifti1Header.template_dtype).copy()
    for name, value in values.items():
        header[name] = value
    path.write_bytes(header.tobytes() + path.read_bytes()[348:])
    return path


@pytest.mark.parametrize("code", [0, 2, 4, 5, 6, 7, 16 + 4, 255])
def test_unknown_units_are_millimetres(tmp_path: Path, code: int) -> None:
    path = with_header(tmp_path / "p.nii", xyzt_units=code)
    loaded = load_study(study_from_path(path))
    assert loaded.spacing == pytest.approx((0.8, 0.9, 5))
    (written,) = write_mask(loaded, np.ones(loaded.image.shape[1:]), tmp_path / "out")
    assert int(nibabel.load(written).header["xyzt_units"]) == code


@pytest.mark.parametrize(("code", "factor"), [(1, 1000), (3, 0.001)])
def test_metres_and_micrometres(tmp_path: Path, code: int, factor: float) -> None:
    loaded = load_study(study_from_path(with_header(tmp_path / "p.nii", xyzt_units=code)))
    assert loaded.spacing == pytest.approx((0.8 * factor, 0.9 * factor, 5 * factor))


HEADERS: dict[str, tuple[dict[str, object], str]] = {
    "huge": ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "found a volume of 30000x30000x30000, allowed 1 to"),
    "wide": ({"dim": [4, 32767, 6, 4, 3, 1, 1, 1]}, "found a volume of 32767x6x4x3, allowed 1 to"),
    "longer than the file": ({"dim": [4, 200, 200, 200, 3, 1, 1, 1]}, "found a truncated or damaged NIfTI file"),
    "empty": ({"dim": [4, 6, 0, 4, 3, 1, 1, 1]}, "found a volume of 6x0x4x3, allowed 1 to"),
    "negative": ({"dim": [4, 6, -5, 4, 3, 1, 1, 1]}, "found a volume of 6x-5x4x3, allowed 1 to"),
    "dimensions": ({"dim": [4, 6, 5, 4, 1, 1, 3, 1]}, "found"),
    "5-D": ({"dim": [5, 6, 5, 2, 2, 3, 1, 1]}, "found 6 channels (6x5x2x2x3), allowed 3 (t1, flair, t1ce)"),
    "no dimension": ({"dim": [0] * 8}, "found"),
    "NaN affine": ({"srow_x": np.nan}, "found an affine that is not invertible"),
    "infinite affine": ({"srow_y": np.inf}, "found an affine that is not invertible"),
    "unknown type": ({"datatype": 9999}, "found not a NIfTI file, or a truncated one"),
    "offset": ({"vox_offset": 1e30}, "found a truncated or damaged NIfTI file"),
    "NaN offset": ({"vox_offset": np.nan}, "found"),
    "magic": ({"magic": b"xxx"}, "found not a NIfTI file"),
}


@pytest.mark.parametrize(("values", "message"), HEADERS.values(), ids=HEADERS.keys())
def test_headers(stacks: Path, values: dict[str, object], message: str) -> None:
    path = with_header(stacks / "bad.nii", **values)
    good, errors = found_in(stacks)
    assert (list(good), list(errors)) == (["good"], ["bad"])
    assert errors["bad"].startswith(f"{path}: {message}")


def test_colour_in_a_nifti_file(stacks: Path) -> None:
    rgb = np.zeros((6, 5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(stacks / "bad.nii.gz", rgb, np.eye(4))
    good, errors = found_in(stacks)
    assert list(good) == ["good"]
    assert errors["bad"].endswith("bad.nii.gz: found voxels of type colour, allowed integers or real numbers")


def test_files_that_are_none(stacks: Path) -> None:
    """A pipe must not be waited for, a folder may be called anything, gzip may be none."""
    os.mkfifo(stacks / "pipe.nii.gz")
    os.mkfifo(stacks / "pipe")
    (stacks / "folder.nii.gz").mkdir()
    (stacks / "plain.nii.gz").write_bytes(with_header(stacks / "x.nii").read_bytes())
    (stacks / "x.nii").unlink()
    (stacks / "nothing.nii").touch()
    (stacks / "loop.nii").symlink_to("loop.nii")
    (stacks / "lost.nii").symlink_to("nowhere")
    good, errors = found_in(stacks)
    assert list(good) == ["good"]
    assert sorted(errors) == ["folder", "loop", "lost", "nothing", "pipe", "plain"]
    assert errors["pipe"] == (f"{stacks}/pipe.nii.gz: found a pipe, socket or device, allowed a readable NIfTI file")
    assert errors["loop"].startswith(f"{stacks}/loop.nii: found ")
    for path in ("pipe.nii.gz", "folder.nii.gz"):
        with pytest.raises(InputError, match=r"found a (pipe|folder)"):
            open_volume(stacks / path)


def test_pipes_among_slices_and_series(tmp_path: Path) -> None:
    image, mask = random_patient()
    for name in ("good", "p"):
        write_slices(tmp_path / name, image, mask)
    (tmp_path / "p" / "p_2.tif").unlink()
    os.mkfifo(tmp_path / "p" / "p_2.tif")
    good, errors = found_in(tmp_path)
    assert list(good) == ["good"]
    assert errors["p"].startswith(f"{tmp_path}/p/p_2.tif: found a pipe, socket or device, allowed a readable PNG or")
    os.mkfifo(tmp_path / "good" / "IM1.dcm")
    (tmp_path / "series").mkdir()
    os.mkfifo(tmp_path / "series" / "IM1")
    with pytest.raises(InputError, match="found no studies in the folder"):
        find_studies(tmp_path / "series", rules=BRATS_RULES)
    os.mkfifo(tmp_path / "split.json")
    with pytest.raises(InputError, match="found a pipe, socket or device"):
        read_split(tmp_path / "split.json")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slices(tmp_path / "good", *random_patient())
    monkeypatch.chdir(tmp_path)  # sockets' paths are short
    (tmp_path / "p").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("p/p_1.png")
        good, errors = found_in(tmp_path)
    assert list(good) == ["good"]
    assert "found a pipe, socket or device" in errors["p"]


def test_links_in_circles(tmp_path: Path) -> None:
    """Links to oneself, to a parent and out of the folder lead nowhere new."""
    image, mask = random_patient()
    write_slices(tmp_path / "elsewhere" / "other", image, mask)
    root = tmp_path / "data"
    write_slices(root / "p", image, mask)
    (root / "self").symlink_to("self")
    (root / "up").symlink_to("..")
    (root / "q").mkdir()
    (root / "q" / "back").symlink_to(root)
    (root / "again").symlink_to(root / "p")
    (root / "self.tif").symlink_to("self.tif")
    (root / "self.tif").unlink()
    good, errors = found_in(root)
    assert [study.patient for study in good.values()] in (["p"], ["again"])
    assert {name: text.split(": found ")[1][:15] for name, text in errors.items()} == {"q": "an empty folder"}


def test_a_link_to_itself_as_the_folder(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(InputError, match="self: found an unreadable folder"):
        find_studies(tmp_path / "self")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "found JSON nested too deeply"),
        ('{"channel_names": ' + '{"0": ' * 50_000, "found JSON nested too deeply"),
        ("[1]", "found channel_names None"),
        ('{"channel_names": {"0": "FLAIR"}, "file_ending": [".nii.gz"]}', "found file_ending ['.nii.gz'], allowed"),
        ('{"channel_names": {"0": "FLAIR"}, "file_ending": {"a": 1}}', "found file_ending {'a': 1}, allowed"),
        ('{"channel_names": {"0": "FLAIR"}, "file_ending": 3}', "found file_ending 3, allowed"),
        ('{"channel_names": {"0": ["FLAIR"]}}', "found a channel named ['FLAIR']"),
        ('{"channel_names": {"0": null}}', "found a channel named None"),
        ('{"channel_names": {"1": "FLAIR"}}', "found channel_names {'1': 'FLAIR'}"),
        ('{"channel_names": {}}', "found channel_names {}"),
        ('{"channel_names": 7}', "found channel_names 7"),
        (json.dumps({"channel_names": ["x" * 100] * 10_000}), "found channel_names ['xxx"),
    ],
    ids=range(12),
)
def test_dataset_json(tmp_path: Path, text: str, message: str) -> None:
    write_nnunet(tmp_path, *random_patient())
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError) as caught:
        find_studies(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/dataset.json: {message}")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "labels", [7, "x", ["a"], {"a": None}, {"a": {"b": 1}}, {"edema": 1e999}, {"edema": [[1]]}, {"": ""}]
)
def test_labels_of_a_dataset_json(tmp_path: Path, labels: object) -> None:
    """What cannot be told from them is left open."""
    write_nnunet(tmp_path, *random_patient())
    content = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
    (study,), errors = find_studies(tmp_path)
    assert (errors, study.conventions) == ([], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "found JSON nested too deeply"),
        ('{"train": {"a": 1}}', "found 'train' that is no list of names"),
        ('{"train": [["p"]]}', "found 'train' that is no list of names"),
        ('{"train": [1]}', "found 'train' that is no list of names"),
        ('{"train": "p"}', "found 'train' that is no list of names"),
        ('{"train": null}', "found 'train' that is no list of names"),
        ("7", "found a JSON int without splits"),
        (b"\xff\xfe", "found no readable JSON"),
    ],
    ids=range(8),
)
def test_split_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        read_split(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_json_with_a_mark_in_front(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["ä"]}', encoding="utf-8-sig")
    assert read_split(tmp_path / "split.json") == {"train": ["ä"]}
    with pytest.raises(InputError, match="found a folder, allowed x"):
        read_json(tmp_path, "x")


@pytest.fixture
def odd_name() -> str:
    """A patient's name that is no UTF-8, as a disc from another system has it."""
    return os.fsdecode(b"p\xff")


def made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True)
    except OSError:  # some file systems take nothing but UTF-8
        return False
    return True


def test_names_that_are_no_text(tmp_path: Path, odd_name: str) -> None:
    folder = tmp_path / odd_name
    if not made(folder):
        pytest.skip("the file system takes text only")
    image, mask = random_patient()
    write_slices(folder, image, mask)
    write_sequences(tmp_path / "q", image, mask, case=odd_name)
    write_slices(tmp_path / f"{odd_name}x", image, mask)
    write_png16(tmp_path / f"{odd_name}x" / f"{odd_name}x_9.png", np.zeros((6, 5, 3), np.uint16))
    good, errors = found_in(tmp_path)
    assert sorted(good) == [odd_name, "q"]
    assert errors[f"{odd_name}x"].startswith(f"{tmp_path}/p\\udcffx")
    for error in errors.values():
        error.encode()
    for study in good.values():
        for path in write_mask(load_study(study), mask, tmp_path / "out"):
            assert path.is_file()
    split = write_atomically(tmp_path / "split.json", json.dumps({"train": [odd_name]}, ensure_ascii=False))
    assert read_split(split) == {"train": [odd_name]}


def test_names_that_speak_to_the_terminal(tmp_path: Path) -> None:
    error = InputError(tmp_path / "a\x1b[2J\nb  c.nii", "x", "y")
    assert str(error) == f"{tmp_path}/a\\x1b[2J\\nb  c.nii: found x, allowed y"
    assert escaped("Ängström 5 %") == "Ängström 5 %"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError(7), "f: found what cannot be processed (KeyError: 7), allowed y"),
        (
            RecursionError("maximum\ndepth"),
            "f: found what cannot be processed (RecursionError: maximum depth), allowed y",
        ),
        (MemoryError(), "f: found more than the memory holds (out of memory), allowed what fits into memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
            "f: found more than the memory holds (DefaultCPUAllocator: can't allocate memory: you tried to allocate 64"
            " bytes), allowed what fits into memory",
        ),
        (ZeroDivisionError(), "f: found ZeroDivisionError, allowed y"),
        (InputError("g", "a", "b"), "g: found a, allowed b"),
        (
            UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"),
            "f: found what cannot be processed (UnicodeEncodeError: 'utf-8",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_happens_is_an_error_of_the_file(error: Exception, text: str) -> None:
    with pytest.raises(InputError) as caught, blaming("f", "y"):
        raise error
    assert str(caught.value).startswith(text)
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = error
    assert str(as_input_error(wrapped, "f", "y")) == str(caught.value)


def test_interrupts_go_through() -> None:
    with pytest.raises(KeyboardInterrupt), blaming("f", "y"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [MemoryError, KeyError, RecursionError, OSError])
def test_one_patient_costs_no_other(tmp_path: Path, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library raises while the folder is looked at or a study is read."""
    for name in ("p1", "p2", "p3"):
        write_sequences(tmp_path / name, *random_patient())
    load = nibabel.load

    def spoilt(path: Path) -> nibabel.Nifti1Image:
        if Path(path).name == "p2_t1.nii.gz":
            raise kind("x")
        return load(path)

    monkeypatch.setattr(nibabel, "load", spoilt)
    good, errors = found_in(tmp_path)
    assert (sorted(good), list(errors)) == (["p1", "p3"], ["p2"])
    (study,) = [one for one in find_studies(tmp_path, rules=BRATS_RULES)[0] if one.patient == "p2"]
    with pytest.raises(PatientError, match="p2"):
        load_aligned(study)


def test_want_of_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stack(tmp_path / "p.nii", random_patient()[0])

    def full(*args: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 8 GiB")

    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", full)
    with pytest.raises(InputError, match=r"p.nii: found more than the memory holds \(Unable to allocate 8 GiB\)"):
        read_volume(tmp_path / "p.nii", ("t1", "flair", "t1ce"))


def test_masks_are_not_read_as_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = random_patient()
    folder = write_sequences(tmp_path / "p1", image, mask)
    for name in ("p1_seg_flair", "p1_t1_gt_v2", "p1_prob"):
        save(folder / f"{name}.nii.gz", *store(mask, "PLS"))
    (study,), errors = find_studies(tmp_path, masks="ignore")
    assert errors == []
    assert [path.name for path in study.images] == ["p1_t1.nii.gz", "p1_t1ce.nii.gz", "p1_flair.nii.gz"]
    assert "p1_seg_flair.nii.gz: a mask or a map by its name, left alone" in capsys.readouterr().err
    (study,), errors = find_studies(tmp_path, masks="required")
    assert (errors, [path.name for path in study.masks]) == ([], ["p1_seg.nii.gz"])
    (folder / "p1_flair.nii.gz").unlink()
    (error,) = find_studies(tmp_path, masks="ignore")[1]
    assert "found no flair (only t1, t1ce)" in str(error)


def test_gt_is_a_mask(tmp_path: Path) -> None:
    image, mask = random_patient()
    folder = write_sequences(tmp_path / "p1", image)
    save(folder / "p1_flair_gt.nii.gz", *store(mask, "PLS"))
    study = study_from_path(folder, masks="required")
    assert len(study.images) == 3
    np.testing.assert_array_equal(load_study(study).mask, mask)
    for name in ("p1_flair_gt", "p1_seg_t1"):
        shutil.copy(folder / "p1_flair_gt.nii.gz", tmp_path / f"{name}.nii.gz")
        with pytest.raises(InputError, match=f"{name}.nii.gz: found a mask or a map by its name, allowed a 4-D stack"):
            study_from_path(tmp_path / f"{name}.nii.gz")


def test_maps_alone_are_no_study(tmp_path: Path) -> None:
    image, mask = random_patient()
    write_sequences(tmp_path / "p1", image, mask)
    for name in ("p2_seg_flair", "p2_seg_t1"):
        save(tmp_path / "p2" / f"{name}.nii.gz", *store(mask, "PLS"))
    (study,), (error,) = find_studies(tmp_path, masks="required")
    assert study.patient == "p1"
    assert str(error).startswith(f"{tmp_path}/p2/p2_seg_flair.nii.gz: found a mask or a map by its name, allowed a 4-D")
    assert find_studies(tmp_path, masks="ignore")[1] == []


def test_a_folder_of_masks_is_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures of masks in colour look like images."""
    image, mask = random_patient()
    write_sequences(tmp_path / "p1", image, mask)
    write_slices(tmp_path / "p1" / "masks", image, None, ".png", stem="p1")
    write_slices(tmp_path / "p2", image, None)
    write_slices(tmp_path / "Labels", image, None, ".png", stem="p2")
    for rules in (LGG_RULES, BRATS_RULES):
        studies, errors = find_studies(tmp_path, masks="ignore", rules=rules)
        assert ([study.patient for study in studies], errors) == (["p1", "p2"], [])
    assert f"note: {tmp_path}/p1/masks: a folder of masks by its name, left alone" in capsys.readouterr().err
    (tmp_path / "p3" / "masks").mkdir(parents=True)
    (error,) = find_studies(tmp_path, masks="ignore")[1]
    assert str(error).startswith(f"{tmp_path}/p3: found no slices or volumes (only masks/), allowed ")


def test_slices_that_are_masks_by_their_names(tmp_path: Path) -> None:
    image, _ = random_patient()
    write_slices(tmp_path / "p1", image, None)
    write_slices(tmp_path / "p2", image, None, ".png", stem="p2_gt")
    (study,), (error,) = find_studies(tmp_path, masks="ignore")
    assert study.patient == "p1"
    assert str(error).startswith(f"{tmp_path}/p2/p2_gt_1.png: found slices that are masks by their names, allowed ")


def test_bids(tmp_path: Path) -> None:
    image, mask = random_patient()
    folder = tmp_path / "sub-01" / "anat"
    write_sequences(folder, image, mask, names=("T1w", "FLAIR", "ce-gd_T1w"), case="sub-01")
    (study,), errors = find_studies(tmp_path, masks="required")
    assert (errors, study.patient, study.sequences) == ([], "sub-01", ("t1", "t1ce", "flair"))
    np.testing.assert_array_equal(load_study(study).image, image)
    save(folder / "sub-01_ce-gd_FLAIR.nii.gz", *store(image[1], "PLS"))
    (error,) = find_studies(tmp_path)[1]
    assert "sub-01_ce-gd_FLAIR.nii.gz" in str(error)
    assert "found a second flair file" in str(error)
