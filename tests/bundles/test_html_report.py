"""The page of a study that a bundle writes on request, segmenting and evaluating."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from .conftest import Patients, Small
from .test_contract import metadata


@pytest.mark.parametrize("verb", ["inferring", "evaluating"])
def test_a_page_for_the_study(
    bundle: Path,
    small: Small,
    patients: Patients,
    small_weights: Path,
    tmp_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(bundle)
    files = ["configs/inference.json", *(["configs/evaluate.yaml"] if verb == "evaluating" else [])]
    workflow = ConfigWorkflow(
        config_file=files,
        workflow_type="infer",
        run_id=verb,
        logging_file=False,
        dataset_dir=str(patients.folder),
        output_dir=str(tmp_path),
        split_file=str(patients.split_file),
        split="test",
        ckpt_path=str(small_weights),
        html_report=True,
        **small.network,
        **({"overlays": False} if verb == "evaluating" else {}),
    )
    workflow.initialize()
    workflow.run()
    (patient,) = json.loads(patients.split_file.read_text())["test"]
    (path,) = (tmp_path / "reports").iterdir()
    page = path.read_text(encoding="utf-8")
    assert path.name == f"{patient}.html" and path.stat().st_size < 10_000_000
    assert f"{bundle.name} {metadata(bundle)['version']}" in page
    assert "Research use only. Not for clinical use." in page
    assert ("Compared with the truth" in page) == (verb == "evaluating")
    # as it was given, and without the folder of the files
    assert f"<dt>channel_order</dt><dd>{str(metadata(bundle)['channel_order']).replace(chr(39), '&#39;')}</dd>" in page
    (images,) = re.findall(r"<dt>Images</dt><dd>(.*?)</dd>", page)
    assert images and "/" not in images
    assert f'href="reports/{patient}.html"' in (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert not (tmp_path / "overlays").exists()
    # what is shown is what was written
    (data,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    shown = json.loads(data)["overlays"]
    assert set(shown) == ({"prediction", "truth"} if verb == "evaluating" else {"prediction"})
    labels = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(shown["prediction"])))
    written = [mask for mask in tmp_path.rglob(small.masks) if patient in str(mask)]
    if small.masks.endswith(".nii.gz"):
        (mask,) = written
        stored = nibabel.load(mask)
        assert (np.asarray(labels.dataobj) > 0).sum() == (np.asarray(stored.dataobj) > 0).sum()
        first = np.linalg.inv(stored.affine) @ labels.affine[:, 3]
        np.testing.assert_allclose(first, np.rint(first), atol=1e-3)  # voxel on voxel
    else:
        from PIL import Image

        lesion = sum(int((np.asarray(Image.open(mask)) > 0).sum()) for mask in written)
        assert (np.asarray(labels.dataobj) > 0).sum() == lesion
