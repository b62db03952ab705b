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
