import hashlib
import json

import numpy as np
from tiny_patients import write_kaggle

from medseg_ext.layouts import find_studies
from medseg_ext.tracking.datasets import summarise_data
from medseg_ext.training import make_piece, read_pieces, write_piece


def studies(folder):
    for seed, name in enumerate(("p0", "p1")):
        write_kaggle(folder, name, seed, shape=(32, 32, 2))
    found, errors = find_studies(folder / "kaggle_3m", masks="required")
    assert not errors
    return found


def test_digest_is_of_patients_names_and_sizes(tmp_path):
    found = studies(tmp_path)
    root = tmp_path / "kaggle_3m"
    names = [f"p{p}/p{p}_{s}{kind}.tif" for p in (0, 1) for s in (1, 2) for kind in ("", "_mask")]
    lines = [f"{name[:2]}\t{name}\t{(root / name).stat().st_size}\n" for name in names]
    data = summarise_data([{"image": study, "patient": study.patient} for study in found], root)
    assert data.digest == hashlib.sha256("".join(lines).encode()).hexdigest()[:32]
    assert (data.name, data.source, data.patients, data.files) == ("kaggle_3m", str(root), ("p0", "p1"), 8)
    assert data.size == sum((root / name).stat().st_size for name in names)
    # in any order, as studies, by a longer way to the folder
    assert summarise_data(found[::-1], root / ".." / "kaggle_3m") == data
    assert summarise_data(found[:1], root).digest != data.digest


def test_digest_stays_when_the_folder_moves_and_changes_with_a_file(tmp_path):
    before = summarise_data(studies(tmp_path), tmp_path / "kaggle_3m")
    (tmp_path / "kaggle_3m").rename(tmp_path / "moved")
    found, _ = find_studies(tmp_path / "moved", masks="required")
    after = summarise_data(found, tmp_path / "moved")
    assert (after.digest, after.name) == (before.digest, "moved")
    with (tmp_path / "moved" / "p0" / "p0_1.tif").open("ab") as file:
        file.write(b"x")
    assert summarise_data(found, tmp_path / "moved").digest != before.digest


def test_images_and_labels_of_a_label_server(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "a.nii.gz").write_bytes(b"12345")
    (tmp_path / "labels" / "a.nii.gz").write_bytes(b"123")
    items = [{"image": str(tmp_path / "a.nii.gz"), "label": str(tmp_path / "labels" / "a.nii.gz")}]
    data = summarise_data(items, tmp_path)
    lines = "a\ta.nii.gz\t5\na\tlabels/a.nii.gz\t3\n"
    assert data.digest == hashlib.sha256(lines.encode()).hexdigest()[:32]
    assert (data.patients, data.files, data.size) == (("a",), 2, 8)


def test_packed_pieces(tmp_path):
    label = np.zeros((3, 10, 9, 8), np.uint8)
    label[:, 3:6, 3:6, 3:6] = 1
    image = np.random.default_rng(0).standard_normal((4, 10, 9, 8))
    write_piece(
        tmp_path, make_piece({"image": image, "label": label, "name": "a_1", "patient": "a", "fold": 0}, "cube")
    )
    (piece,) = read_pieces(tmp_path)
    data = summarise_data([piece], tmp_path)
    lines = f"a\ta_1.image.npy\t{piece.image.nbytes}\na\ta_1.truth.npy\t{10 * 9 * 8}\n"
    assert data.digest == hashlib.sha256(lines.encode()).hexdigest()[:32]
    assert (data.patients, data.files) == (("a",), 2)


def test_entity_names_context_and_split(tmp_path):
    entity = summarise_data(studies(tmp_path), tmp_path / "kaggle_3m").as_input("training", "train")
    assert {tag.key: tag.value for tag in entity.tags} == {"mlflow.data.context": "training", "split": "train"}
    assert json.loads(entity.dataset.source) == {"uri": str(tmp_path / "kaggle_3m")}
    assert json.loads(entity.dataset.profile)["patients"] == 2
