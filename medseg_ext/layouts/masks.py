"""Write masks the way the images came: format, geometry, naming. A study's masks are there whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from medseg_ext.errors import InputError
from medseg_ext.layouts.nifti import reference_image
from medseg_ext.layouts.orientation import inverse, reorient, to_canonical_transform
from medseg_ext.layouts.pictures import picture_size
from medseg_ext.layouts.sequences import PICTURE_SUFFIXES, split_suffix
from medseg_ext.layouts.slices import is_mask_name, slice_name
from medseg_ext.layouts.study import LoadedStudy, Study
from medseg_ext.layouts.volumes import image_like, open_volume, shape_text, world_affine

ALLOWED_OUTPUT = "a writable folder with room for the masks"


def check_output_dir(output_dir: str | os.PathLike[str], input_dir: str | os.PathLike[str]) -> None:
    """Refuse to write into the folder that is read, also where links hide that it is the same.

    Args:
        output_dir: where masks are to go; it need not exist.
        input_dir: where the studies lie, or one file of them.

    Raises:
        InputError: where the output folder is the input folder or lies in it.
    """
    source = Path(input_dir)
    source = source.parent if source.is_file() else source
    place = Path(os.path.realpath(output_dir))
    # samefile sees through links, hard mounts and letters' case, which comparing names does not.
    for above in (place, *place.parents):
        with contextlib.suppress(OSError):
            if above.samefile(source):
                what = "the input folder" if above == place else "a folder inside the input"
                raise InputError(output_dir, f"{what} as the output folder", "a folder outside the input")
    # nnU-Net's truth lies beside its images under the very names that masks get
    with contextlib.suppress(OSError):
        beside = place.parent.samefile(Path(os.path.realpath(source)).parent)
        if beside and source.name.startswith("images") and place.name.startswith("labels"):
            raise InputError(output_dir, "the input's labels as the output folder", "a folder outside the data set")


def write_mask(study: LoadedStudy | Study, mask: np.ndarray, output_dir: str | os.PathLike[str]) -> list[Path]:
    """Write a study's mask in the format, geometry and naming of its images.

    Slices give ``OUT/<patient>/<slice>_mask.<ext>`` of 0 and 255, NIfTI files ``OUT/<patient>_mask.nii.gz`` and
    nnU-Net cases ``OUT/<case>.nii.gz`` of 0 and 1 in the orientation and with the affine, codes and units of the
    input. Earlier masks of the patient are replaced; other files in the output folder are left alone.

    Args:
        study: what the mask belongs to.
        mask: shape (H, W, D) in the canonical orientation; bool, or numbers where other than 0 is lesion.
        output_dir: made where it does not exist.

    Returns:
        The files written, slices by number.

    Raises:
        InputError: where the mask would land among the input, or cannot be written (disk full, no permission); then
            nothing of it is left.
        ValueError: for a mask of another shape than the study.
    """
    files = study.study if isinstance(study, LoadedStudy) else study
    if isinstance(study, LoadedStudy) and mask.shape != study.image.shape[1:]:
        raise ValueError(f"mask of shape {mask.shape} for a study of shape {study.image.shape[1:]}")
    lesion = (np.asarray(mask) != 0).astype(np.uint8)
    if files.layout in {"kaggle", "slices"}:
        return _write_slices(files, lesion, Path(output_dir))
    return _write_volume(files, lesion, Path(output_dir))


def mask_files(study: Study, output_dir: str | os.PathLike[str]) -> list[Path]:
    """The files that :func:`write_mask` makes of a study, slices by number."""
    output_dir = Path(output_dir)
    if study.layout in {"kaggle", "slices"}:
        images = study.images[:: max(len(study.sequences), 1)]
        names = (f"{slice_name(image, study.patient)}_mask{image.suffix}" for image in images)
        return [output_dir / study.patient / name for name in names]
    tail = "" if study.layout == "nnunet" else "_mask"
    return [output_dir / f"{study.patient}{tail}{split_suffix(reference_image(study).name)[1]}"]


def _write_slices(study: Study, lesion: np.ndarray, output_dir: Path) -> list[Path]:
    images = study.images[:: max(len(study.sequences), 1)]
    wanted = (*picture_size(images[0]), len(images))
    if lesion.shape != wanted:
        raise ValueError(f"mask of shape {lesion.shape} for slices of shape {wanted}")
    target = output_dir / study.patient
    refuse_input(target, study)
    names = [path.name for path in mask_files(study, output_dir)]

    def fill(folder: Path) -> None:
        for i, name in enumerate(names):
            # Through memory, as Pillow's own writing to a file takes a short write, a full disk's first sign, for done.
            content = io.BytesIO()
            picture = Image.fromarray(np.ascontiguousarray(lesion[:, :, i]) * np.uint8(255))
            picture.save(content, format="PNG" if name.lower().endswith(".png") else "TIFF")
            (folder / name).write_bytes(content.getvalue())

    with _reported(target):
        output_dir.mkdir(parents=True, exist_ok=True)
        with _staging(target) as staged:
            fill(staged)
            _swap_folders(staged, target)
    return [target / name for name in names]


def _write_volume(study: Study, lesion: np.ndarray, output_dir: Path) -> list[Path]:
    source = reference_image(study)
    (target,) = mask_files(study, output_dir)
    refuse_input(output_dir, study)
    image = _volume_like(source, lesion)
    with _reported(target):
        output_dir.mkdir(parents=True, exist_ok=True)
        with _staging(target) as staged:
            nibabel.save(image, staged / target.name)
            (staged / target.name).replace(target)
    return [target]


def _volume_like(source: Path, lesion: np.ndarray) -> nibabel.Nifti1Image:
    """A canonical mask as an image with the geometry of an input file."""
    reference = open_volume(source)
    affine, oriented = world_affine(reference, source)
    stored = reorient(lesion, inverse(to_canonical_transform(affine if oriented else None)))
    shape = reference.shape
    # Channels in front, (C, X, Y, Z), are the exception, so the usual place is tried first.
    spaces = [shape[:3]] + ([shape[1:4]] if len(shape) == 4 else [])
    if stored.shape not in spaces:
        raise ValueError(f"mask of shape {stored.shape} as stored for {source} of shape {shape_text(shape)}")
    return image_like(reference, stored.astype(np.uint8, copy=False))


def refuse_input(folder: Path, study: Study) -> None:
    """The last guard: no mask lands in a folder that holds the study's own files."""
    for source in {study.folder, *(path.parent for path in (*study.images, *study.masks))}:
        with contextlib.suppress(OSError):
            if folder.samefile(source):
                raise InputError(folder, "the input's own folder as the place of its masks", "another output folder")


@contextlib.contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(target, error.strerror or str(error), ALLOWED_OUTPUT) from error


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system, that is gone afterwards whatever happens."""
    staged = target.with_name(f"{target.name}.part")
    _remove(staged)  # left by a run that was killed
    staged.mkdir()
    try:
        yield staged
    finally:
        _remove(staged)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _swap_folders(staged: Path, target: Path) -> None:
    """Put a finished folder in the target's place; what an older one held besides masks moves along."""
    if not target.is_dir():
        staged.rename(target)
        return
    old = target.with_name(f"{target.name}.old.part")
    _remove(old)
    target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        old.rename(target)
        raise
    for path in old.iterdir():
        is_mask = path.suffix.lower() in PICTURE_SUFFIXES and is_mask_name(path.name)
        if not is_mask and not (target / path.name).exists():
            path.rename(target / path.name)
    _remove(old)
