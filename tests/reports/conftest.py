import numpy as np
import pytest


def make_head(depth=9, rows=64, columns=48, lesion=True):
    """An ellipse with a bright lesion in noise: image (3, rows, columns, depth), truth."""
    rng = np.random.default_rng(0)
    r, c, s = np.mgrid[:rows, :columns, :depth]
    inside = ((r - rows / 2) / (rows * 0.4)) ** 2 + ((c - columns / 2) / (columns * 0.4)) ** 2 < 1
    truth = ((r - rows / 2) ** 2 + (c - columns / 3) ** 2 + 4 * (s - depth / 2) ** 2 < 40) & lesion
    flair = 100.0 * inside + 80 * truth
    image = np.stack([100.0 * inside, flair, flair]) + rng.normal(0, 3, (3, rows, columns, depth))
    return image.clip(0).astype(np.float32), truth


@pytest.fixture(scope="session")
def head():
    return make_head


def make_tumour(shift=0, shape=(40, 36, 24)):
    """A head with a tumour: image (4, ...) in the order t1, t1ce, t2, flair; prediction, ``shift`` rows off; truth."""
    rng = np.random.default_rng(0)
    r, c, s = np.mgrid[: shape[0], : shape[1], : shape[2]]
    head = ((r - 20) / 18) ** 2 + ((c - 18) / 16) ** 2 + ((s - 12) / 11) ** 2 < 1
    distance = ((r - 18) ** 2 + (c - 12) ** 2 + (s - 13) ** 2) ** 0.5
    truth = np.stack([distance < 5, distance < 8, (distance < 5) & (distance >= 3)])
    core, whole, enhancing = truth
    image = np.stack([0 * whole, 60 * enhancing - 20.0 * core, 50 * whole, 70 * whole])
    image = ((image + 80 + rng.normal(0, 3, image.shape)) * head).clip(0)
    return image.astype(np.float32), np.roll(truth, shift, 1), truth


@pytest.fixture(scope="session")
def tumour():
    return make_tumour
