"""A study's page without a browser: what stands in it, and what cannot get into it."""

import base64
import gzip
import hashlib
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from html_page import AFFINE, HOSTILE, ORDER, Elements, data_of, placed, write_page
from ignite.engine import Engine
from monai.data import MetaTensor

from medseg_ext.errors import InputError
from medseg_ext.layouts.study import Study
from medseg_ext.reports import LesionMeasures, RegionMeasures, StudyPages, StudyReportHandler
from medseg_ext.reports.html import niivue
from medseg_ext.reports.html.pages import _fitting
from medseg_ext.reports.html.volumes import grey_volume, made_grid
from medseg_ext.reports.measures import StudyArrays
from medseg_ext.workflow import CaseRecords


def decoded(text):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def sha256(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_niivue_is_what_its_makers_distribute():
    script = gzip.decompress(niivue.compressed_script())
    assert hashlib.sha256(script).hexdigest() == niivue.SHA256
    assert f'"{niivue.VERSION}"'.encode() in script
    assert "BSD 2-Clause" in niivue.licences() and "MIT License" in niivue.licences()


def test_only_the_two_scripts_and_the_style_of_the_page_are_allowed(tmp_path, tumour):
    _, page = write_page(tmp_path, tumour)
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    *_, script = page.texts["script"]
    (style,) = page.texts["style"]
    viewer = base64.b64encode(bytes.fromhex(niivue.SHA256)).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [sha256(script), f"'sha256-{viewer}'"]
    assert rules["style-src"] == sha256(style)
    assert {source for name in ("img-src", "connect-src") for source in rules[name].split()} == {"data:", "blob:"}
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy


def test_nothing_is_fetched(tmp_path, tumour):
    _, page = write_page(tmp_path, tumour)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert len(links) == 1 and links[0].startswith("data:image/png;base64,")
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base"} == set()
    assert "url(" not in page.texts["style"][0] and "@import" not in page.texts["style"][0]


def test_names_are_text_and_nothing_else(tmp_path, tumour):
    settings = {HOSTILE: HOSTILE}
    study = Study(patient=HOSTILE, layout="nifti", folder=tmp_path, images=(tmp_path / "<b>.nii",), sequences=ORDER)
    path, page = write_page(
        tmp_path,
        tumour,
        patient=HOSTILE,
        settings=settings,
        provenance={"command": HOSTILE},
        studies=[study],
        meta={"notes": HOSTILE},
        title=HOSTILE,
    )
    tags = [tag for tag, _ in page.tags]
    # data, NiiVue and the page's own; the picture
    assert [tags.count(tag) for tag in ("script", "img", "h1", "b")] == [3, 1, 1, 0]
    assert {name for _, attributes in page.tags for name in attributes} & {"onerror", "onload"} == set()
    assert page.texts["h1"] == [HOSTILE]
    assert page.texts["title"] == [f"{HOSTILE}: {HOSTILE}"]
    assert data_of(page)["patient"] == HOSTILE
    assert HOSTILE in page.texts["dd"] and HOSTILE in page.texts["dt"] and HOSTILE in page.texts["li"]
    assert "<b>.nii" in page.texts["dd"]
    assert path.parent == tmp_path / "reports" and "<" not in path.name and "/" not in path.stem


def test_what_is_embedded_is_the_study(tmp_path, tumour):
    image, pred, truth = tumour(shift=2)
    _, page = write_page(tmp_path, tumour)
    data = data_of(page)
    assert [one["label"] for one in data["backgrounds"]] == ["FLAIR", "T1 with contrast", "T2", "T1"]
    assert [(one["value"], one["colour"]) for one in data["tissues"]] == [
        (1, "#cc3333"),
        (2, "#59bf59"),
        (3, "#ffcc33"),
    ]
    for name, (core, whole, enhancing) in {"prediction": pred, "truth": truth}.items():
        expected = np.zeros(image.shape[1:], np.uint8)
        expected[whole] = 2
        expected[core] = 1
        expected[enhancing] = 3
        found = decoded(data["overlays"][name])
        corner = np.rint(np.linalg.inv(AFFINE) @ found.affine[:, 3]).astype(int)[:3]
        box = tuple(slice(start, start + size) for start, size in zip(corner, found.shape, strict=True))
        np.testing.assert_array_equal(np.asarray(found.dataobj), expected[box])
        assert (found.get_fdata() > 0).sum() == (expected > 0).sum()
        np.testing.assert_allclose(found.affine[:3, :3], AFFINE[:3, :3])
        for one in data["backgrounds"]:
            shown = decoded(one["data"])
            np.testing.assert_allclose(shown.affine, found.affine)
            channel = image[ORDER.index({"FLAIR": "flair", "T1": "t1", "T2": "t2"}.get(one["label"], "t1ce"))][box]
            error = shown.get_fdata() - channel.clip(one["low"], one["high"])
            assert np.abs(error).max() <= 0.501 * (one["high"] - one["low"]) / 255
    # where most of the tumour is
    place = np.linalg.inv(AFFINE) @ [*data["place"], 1]
    assert expected[tuple(np.rint(place[:3]).astype(int))] > 0


def test_content(tmp_path, tumour):
    pred = tumour(shift=2)[1]
    folder = tmp_path / "home" / "p1"
    files = [folder / f"p1_{name}.nii.gz" for name in ("t1ce", "t2", "flair")]
    study = Study(
        patient="p1",
        layout="nifti",
        folder=folder,
        images=tuple(files),
        masks=(folder / "p1_seg.nii.gz",),
        sequences=("t1ce", "t2", "flair"),
    )
    _, page = write_page(
        tmp_path,
        tumour,
        title="Regions",
        settings={"thresholds": [0.5, 0.5]},
        provenance={"bundle": "b 0.1.0", "weights_sha256": "ab" * 32, "date": "2020-02-02"},
        studies=[study],
        meta={"notes": f"{folder}: no t1; the result may be worse\n{files[0]}: resampled", "skull_stripped": True},
    )
    everything = " ".join(page.texts["main"])
    assert everything.count("Research use only. Not for clinical use.") == 2
    assert str(tmp_path) not in everything
    for text in (
        *("p1_t1ce.nii.gz, p1_t2.nii.gz, p1_flair.nii.gz", "p1_seg.nii.gz", "T1 with contrast, T2, FLAIR"),
        *("40 × 36 × 24 voxels of 1 × 1 × 1 mm, orientation PLS", "[0.5, 0.5]", "b 0.1.0", "ab" * 32, "2020-02-02"),
    ):
        assert text in page.texts["dd"] or text in everything
    assert page.texts["li"] == ["p1: no t1; the result may be worse", "p1_t1ce.nii.gz: resampled"]
    assert dict(zip(page.texts["dt"], page.texts["dd"], strict=True))["Missing sequences"] == "T1"
    core, whole, enhancing = (f"{region.sum() / 1000:.2f}" for region in pred)
    cells = page.texts["td"]
    assert cells[:6:2] == [
        core,
        whole,
        enhancing,
    ]  # predicted and, as the phantom's tumour was moved, the same of truth
    assert cells[1:6:2] == [core, whole, enhancing]
    assert "HD95 [mm]" in page.texts["th"] and "Lesion-wise Dice" in page.texts["th"]
    assert "Volume [ml]" not in page.texts["th"]
    assert page.all("noscript")


def test_without_a_truth_volumes_are_left(tmp_path, tumour):
    _, page = write_page(tmp_path, tumour, truth=False)
    assert list(data_of(page)["overlays"]) == ["prediction"]
    assert page.texts["h2"] == ["Slices", "3-D view", "Volumes", "Input"]
    assert "Predicted [ml]" in page.texts["th"] and "Truth [ml]" not in page.texts["th"]


def test_a_lesion_in_slices_without_a_voxel_size(tmp_path, head):
    image, truth = head()
    image[2] = image[1]  # FLAIR stands in
    study = StudyArrays("p 1", image, np.roll(truth, 1, 0), truth)
    files = Study(
        patient="p 1",
        layout="slices",
        folder=tmp_path / "p 1",
        images=tuple(
            tmp_path / "p 1" / f"p_{slice_}_{name}.png" for slice_ in range(1, 10) for name in ("t1", "flair")
        ),
        sequences=("t1", "flair"),
    )
    measures = LesionMeasures()
    row = measures.measure(study)
    pages = StudyPages(tmp_path, channel_order=("t1", "flair", "t1ce"), studies=[files])
    path = pages.write(study, MetaTensor(torch.from_numpy(image)), row, measures)
    page = Elements(path.read_text(encoding="utf-8"))
    assert path.name == "p_1.html"
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts["Images"] == "18 files, p_1_t1.png to p_9_flair.png"
    assert facts["Sequences"] == "T1, FLAIR" and facts["Missing sequences"] == "T1 with contrast"
    assert facts["Grid"] == "64 × 48 × 9 voxels; the files hold no voxel size"
    assert [one["label"] for one in data_of(page)["backgrounds"]] == ["FLAIR", "T1"]
    assert page.texts["li"] == [
        "The files hold no voxel size: the 3-D view draws voxels of 1 mm, volumes are counts of voxels."
    ]
    assert page.texts["td"][:2] == [str(truth.sum())] * 2
    assert [one["colour"] for one in data_of(page)["tissues"]] == ["#ff6a1f"]
    shown = decoded(data_of(page)["backgrounds"][0]["data"])
    assert nibabel.aff2axcodes(shown.affine) == ("P", "L", "S")


def test_nothing_found_is_said(tmp_path, tumour):
    image, pred, _ = tumour()
    measures = RegionMeasures(ORDER)
    study = StudyArrays("p1", image, pred & False, None, None, (1.0, 1.0, 1.0))
    path = StudyPages(tmp_path, channel_order=ORDER).write(study, placed(image), measures.measure(study), measures)
    assert Elements(path.read_text(encoding="utf-8")).texts["li"] == ["Nothing was found: the prediction is empty."]


def test_the_names_of_the_channels_have_to_fit(tmp_path, tumour):
    image, pred, _ = tumour()
    study = StudyArrays("p1", image, pred, None, None, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="found 4 channels, allowed flair"):
        StudyPages(tmp_path, channel_order=["flair"]).write(study, image, {}, RegionMeasures(ORDER))


def test_a_folder_that_cannot_be_made_is_named(tmp_path, tumour):
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(InputError, match=r"reports.p1\.html: found .*, allowed a writable folder"):
        write_page(tmp_path, tumour)


def test_a_sequence_is_as_fine_as_there_is_room_for():
    channel = np.random.default_rng(0).integers(0, 256, (24, 24, 24)).astype(np.float32)
    grid = made_grid(channel.shape, None)
    fine, coarse = (grey_volume(channel, grid, edge) for edge in (1, 2))
    assert _fitting(channel, grid, len(fine.data)) == fine
    assert _fitting(channel, grid, len(fine.data) - 1) == coarse
    least = _fitting(channel, grid, 400)
    assert least.coarsened > 2 and len(least.data) <= 400
    assert _fitting(channel, grid, 100) is None


def test_what_there_is_no_room_for_is_said(tmp_path, tumour):
    path, page = write_page(tmp_path, tumour)
    room = path.stat().st_size - 1000  # and what is kept for words
    path, page = write_page(tmp_path, tumour, most_bytes=room)
    assert path.stat().st_size <= room
    assert data_of(page)["backgrounds"] == []
    assert page.texts["li"] == ["For want of room the 3-D view does not show T1, T1 with contrast, T2, FLAIR."]


@pytest.mark.slow
def test_noise_as_large_as_a_brats_case_stays_below_ten_megabytes(tmp_path):
    """Nothing compresses less, and no head needs more room: noise to the edges, in four sequences."""
    shape = (240, 240, 155)
    image = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8).astype(np.float32)
    pred = np.zeros((3, *shape), bool)
    pred[1, 100:140, 100:140, 60:90] = True
    measures = RegionMeasures(ORDER)
    study = StudyArrays("p1", image, pred, None, None, (1.0, 1.0, 1.0))
    path = StudyPages(tmp_path, channel_order=ORDER).write(study, placed(image), measures.measure(study), measures)
    assert 5_000_000 < path.stat().st_size < 10_000_000
    shown = data_of(Elements(path.read_text(encoding="utf-8")))["backgrounds"]
    assert shown[0]["label"] == "FLAIR, blocks of 2 voxels"
    assert len(shown) > 1


# in a run


@pytest.fixture
def items(tumour):
    def make(*names):
        for name in names:
            image, pred, _ = tumour()
            yield {"image": placed(image), "pred": torch.from_numpy(pred), "patient": name, "spacing": (1.0, 1.0, 1.0)}

    return make


def run(folder, patients, *, errors=(), pages=True, records=None, studies=()):
    handler = StudyReportHandler(
        folder,
        measures=RegionMeasures(ORDER),
        overlays=False,
        errors=errors,
        records=records,
        studies=studies,
        pages=StudyPages(folder, channel_order=ORDER) if pages else None,
    )
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run([[patient] for patient in patients] or [[]])


def pages_in(folder):
    return sorted(path.name for path in (folder / "reports").glob("*"))


def test_the_summary_leads_to_the_pages(items, tmp_path):
    run(tmp_path, items("p1", "<p> 2"))
    assert pages_in(tmp_path) == ["_p_2.html", "p1.html"]
    summary = Elements((tmp_path / "summary.html").read_text(encoding="utf-8"))
    assert [one["href"] for one in summary.all("a")] == ["reports/_p_2.html", "reports/p1.html"]
    assert summary.texts["a"] == ["<p> 2", "p1"]


def test_pages_of_an_earlier_run_go(items, tmp_path):
    run(tmp_path, items("p1", "p2"))
    (tmp_path / "reports" / "mine.html").touch()
    run(tmp_path, items("p3"))
    assert pages_in(tmp_path) == ["mine.html", "p3.html"]
    run(tmp_path, items("p4"), pages=False)
    assert pages_in(tmp_path) == ["mine.html"]


def test_a_patient_that_failed_has_no_page(items, tmp_path):
    class Failed(list):
        patients = ("p1",)

    run(tmp_path, items("p1", "p2"), errors=Failed(["p1: found nothing, allowed a disk"]))
    assert pages_in(tmp_path) == ["p2.html"]


def test_pages_of_an_earlier_start_stay(items, tmp_path):
    studies = [SimpleNamespace(patient=name) for name in ("p1", "p2", "p3")]

    def start(*names):
        records = CaseRecords(tmp_path / "cases", tmp_path, lambda study, folder: [], ["report", "page"])
        done = records.done(studies)
        run(tmp_path, items(*[name for name in names if name not in done]), records=records, studies=studies)
        return done

    assert start("p1") == set()
    first = (tmp_path / "reports" / "p1.html").stat().st_mtime_ns
    assert start("p1", "p2") == {"p1"}
    assert start("p1", "p2") == {"p1", "p2"}
    assert pages_in(tmp_path) == ["p1.html", "p2.html"]
    assert (tmp_path / "reports" / "p1.html").stat().st_mtime_ns == first
    assert "reports/p1.html" in (tmp_path / "summary.html").read_text(encoding="utf-8")
