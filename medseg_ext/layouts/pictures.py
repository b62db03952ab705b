"""One slice in one file: PNG and TIFF, 8 and 16 bit, grey and RGB, read without loss."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from medseg_ext.errors import InputError, as_input_error, blaming
from medseg_ext.files import check_regular

# Pillow warns of what it then raises for; the error names the file and the warning does not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

ALLOWED_PICTURE = "a readable PNG or TIFF"
#: Slices are small; a header that promises more pixels than this is broken or hostile.
MAX_PIXELS = 4096 * 4096
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1


def _open(path: Path) -> ImageFile.ImageFile:
    check_regular(path, ALLOWED_PICTURE)
    try:
        picture = Image.open(path, formats=("TIFF", "PNG"))
    except FileNotFoundError as error:
        raise InputError(path, "no such file", ALLOWED_PICTURE) from error
    except Image.DecompressionBombError as error:
        raise InputError(path, "a picture of absurd size", f"at most {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise InputError(path, "not a PNG or TIFF, or a truncated one", ALLOWED_PICTURE) from error
    except Exception as error:  # damaged headers make Pillow raise nearly anything
        raise InputError(path, f"an unreadable file ({_reason(error)})", ALLOWED_PICTURE) from error
    if math.prod(picture.size) > MAX_PIXELS:
        width, height = picture.size
        picture.close()
        raise InputError(path, f"a picture of {height}x{width}", f"at most {MAX_PIXELS} pixels")
    return picture


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _deep_colour(picture: ImageFile.ImageFile, path: Path) -> bool:
    """Whether the file holds 16-bit colour, which Pillow silently reduces to 8 bit."""
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        kinds = picture.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))  # type: ignore[attr-defined]
        if len(bits) > 1 and (set(bits) - {8, 16} or set(kinds) != {_UNSIGNED}):
            raise InputError(path, f"colour of {max(bits)} bits a channel", "8 or 16 bits, unsigned")
        return len(bits) > 1 and max(bits) > 8
    # PNG: the mode Pillow decodes from, e.g. "RGB;16B".
    return picture.mode in {"RGB", "RGBA"} and any(";16" in str(tile[3]) for tile in picture.tile)


def _read_deep(path: Path) -> np.ndarray:
    """16-bit colour by ITK, whose PNG and TIFF readers keep all bits; shape (H, W, channels)."""
    import itk

    try:
        reader = itk.ImageFileReader[itk.VectorImage[itk.US, 2]].New(FileName=str(path))
        reader.Update()
    except RuntimeError as error:
        raise InputError(path, "a truncated or damaged picture", ALLOWED_PICTURE) from error
    return itk.array_from_image(reader.GetOutput())


def read_picture(path: Path) -> np.ndarray:
    """Read one slice with the values it holds.

    Args:
        path: PNG or TIFF, 8 or 16 bit (grey also 32-bit float).

    Returns:
        (H, W) for grey, (H, W, channels) for colour, in the file's own type of number.

    Raises:
        InputError: for a file that is missing, truncated, no picture, a palette picture, too large or of several pages.
    """
    with _open(path) as picture, blaming(path, ALLOWED_PICTURE):
        pages = getattr(picture, "n_frames", 1)
        if pages != 1:
            raise InputError(path, f"{pages} pages", "one slice a file")
        if picture.mode in {"P", "PA"}:
            raise InputError(path, "a palette picture", "grey or RGB")
        if _deep_colour(picture, path):
            return _read_deep(path)
        try:
            array = np.asarray(picture)
        except Image.DecompressionBombError as error:
            raise InputError(path, "a picture of absurd size", f"at most {MAX_PIXELS} pixels") from error
        except MemoryError as error:
            raise as_input_error(error, path, ALLOWED_PICTURE) from error
        except Exception as error:
            raise InputError(path, f"a truncated or damaged picture ({_reason(error)})", ALLOWED_PICTURE) from error
    return array.astype(np.uint8) if array.dtype == bool else array


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header."""
    with _open(path) as picture:
        return picture.height, picture.width


def count_channels(picture: np.ndarray) -> int:
    """Channels of a picture as `read_picture` gives it."""
    return 1 if picture.ndim == 2 else picture.shape[2]


def read_mask_picture(path: Path) -> np.ndarray:
    """Read one slice's mask.

    Returns:
        uint8 of 0 and 1, shape (H, W).

    Raises:
        InputError: as `read_picture`, and for colour or for values other than 0 and 1, or 0 and 255.
    """
    picture = read_picture(path)
    if picture.ndim != 2:
        raise InputError(path, f"a mask of {picture.shape[2]} channels", "1 channel of 0 and 255, or 0 and 1")
    if picture.dtype == np.uint8:
        values = np.flatnonzero(np.bincount(picture.ravel(), minlength=256))
    else:
        values = np.unique(picture)
    if not (set(values.tolist()) <= {0, 255} or set(values.tolist()) <= {0, 1}):
        grey = [value for value in values.tolist() if value not in {0, 1, 255}] or values.tolist()
        shown = ", ".join(f"{value:g}" for value in grey[:3]) + (", ..." if len(grey) > 3 else "")
        raise InputError(path, f"grey values in the mask ({shown})", "only 0 and 255, or only 0 and 1")
    return (picture != 0).astype(np.uint8)
