"""What each tissue looks like in each sequence, relative to white matter."""

from __future__ import annotations

import numpy as np

from medseg_ext.phantoms.anatomy import Tissue
from medseg_ext.phantoms.lesion import EDEMA, ENHANCING, NECROTIC
from medseg_ext.phantoms.noise import FloatArray

SEQUENCES = ("t1", "t1ce", "t2", "flair")


def _t1(rng: np.random.Generator, contrast: bool) -> dict[Tissue, float]:
    # From spin echo (grey and white matter hardly apart) to inversion-prepared gradient echo.
    weighting = float(rng.beta(1.5, 1.8))
    grey = 0.92 - 0.24 * weighting
    fluid = 0.50 - 0.24 * weighting
    fat = float(rng.uniform(1.5, 2.9))
    if contrast:
        fat = 0.75 if rng.random() < 0.2 else 0.8 * fat
    table = {
        Tissue.SKIN: 0.9,
        Tissue.FAT: fat,
        Tissue.MUSCLE: float(rng.uniform(0.7, 0.9)),
        Tissue.BONE: 0.12,
        Tissue.MARROW: fat * float(rng.uniform(0.45, 0.85)),
        Tissue.MUCOSA: 0.8,
        Tissue.EYE: fluid,
        Tissue.CSF: fluid,
        Tissue.GREY: grey,
        Tissue.WHITE: 1.0,
        Tissue.DEEP_GREY: 0.4 * 1.0 + 0.6 * grey,
        Tissue.VENTRICLE: fluid * 0.92,
        Tissue.CHOROID: 0.75,
        Tissue.SINUS: float(rng.uniform(0.35, 0.9)),
        Tissue.VEIN: fluid + 0.1,
        Tissue.FALX: 0.75,
        Tissue.CEREBELLUM: 0.5 * grey + 0.45,
        Tissue.CAP: 0.93,
        Tissue.CISTERN: fluid,
    }
    if contrast:
        table |= {
            Tissue.MUCOSA: float(rng.uniform(1.3, 2.2)),
            Tissue.CHOROID: float(rng.uniform(1.3, 2.0)),
            Tissue.SINUS: float(rng.uniform(1.6, 2.6)),
            Tissue.VEIN: float(rng.uniform(1.1, 2.0)),
            Tissue.FALX: float(rng.uniform(0.95, 1.4)),
            Tissue.SKIN: 1.1,
        }
    return table


def _t2(rng: np.random.Generator) -> dict[Tissue, float]:
    fluid = float(rng.uniform(2.3, 3.1))
    fat = float(rng.uniform(1.3, 2.2))
    return {
        Tissue.SKIN: 0.9,
        Tissue.FAT: fat,
        Tissue.MUSCLE: 0.6,
        Tissue.BONE: 0.12,
        Tissue.MARROW: 0.6 * fat,
        Tissue.MUCOSA: 2.3,
        Tissue.EYE: fluid,
        Tissue.CSF: fluid,
        Tissue.GREY: float(rng.uniform(1.25, 1.5)),
        Tissue.WHITE: 1.0,
        Tissue.DEEP_GREY: 1.12,
        Tissue.VENTRICLE: fluid,
        Tissue.CHOROID: 1.9,
        Tissue.SINUS: 0.4,
        Tissue.VEIN: 0.8,
        Tissue.FALX: 0.7,
        Tissue.CEREBELLUM: 1.25,
        Tissue.CAP: 1.3,
        Tissue.CISTERN: fluid * 0.9,
    }


def _flair(rng: np.random.Generator) -> dict[Tissue, float]:
    grey = float(rng.uniform(1.08, 1.26))
    fluid = float(rng.uniform(0.15, 0.35))
    fat = float(rng.uniform(1.5, 3.0))
    return {
        Tissue.SKIN: 0.9,
        Tissue.FAT: fat,
        Tissue.MUSCLE: float(rng.uniform(0.55, 0.85)),
        Tissue.BONE: 0.12,
        Tissue.MARROW: fat * float(rng.uniform(0.4, 0.85)),
        Tissue.MUCOSA: float(rng.uniform(1.2, 2.0)),
        Tissue.EYE: fluid,
        Tissue.CSF: fluid * 1.1,
        Tissue.GREY: grey,
        Tissue.WHITE: 1.0,
        Tissue.DEEP_GREY: 0.45 + 0.55 * grey,
        Tissue.VENTRICLE: fluid,
        Tissue.CHOROID: float(rng.uniform(0.9, 1.4)),
        Tissue.SINUS: float(rng.uniform(0.3, 0.6)),
        Tissue.VEIN: 0.45,
        Tissue.FALX: 0.6,
        Tissue.CEREBELLUM: 0.35 + 0.65 * grey,
        Tissue.CAP: float(rng.uniform(1.15, 1.5)),
        # Inflow: blood and fluid that move through the basal cisterns escape the inversion.
        Tissue.CISTERN: fluid + float(rng.uniform(0.0, 0.35)),
    }


def tissue_table(sequence: str, rng: np.random.Generator) -> FloatArray:
    """Signal of each `Tissue` relative to white matter, shape ``(len(Tissue),)``."""
    draw = {"t1": lambda: _t1(rng, False), "t1ce": lambda: _t1(rng, True), "t2": lambda: _t2(rng)}
    table = draw.get(sequence, lambda: _flair(rng))()
    return np.array([table.get(tissue, 0.0) for tissue in Tissue], np.float32)


def lesion_table(sequence: str, kind: str, rng: np.random.Generator) -> FloatArray:
    """Signal of the labels 0 to 4 relative to white matter, shape ``(5,)``."""
    table = np.ones(5, np.float32)
    bright = float(rng.uniform(1.45, 2.15))
    dark = float(rng.uniform(0.56, 0.84))
    high = kind == "high"
    if sequence == "flair":
        table[EDEMA] = bright
        table[NECROTIC] = bright * float(rng.uniform(0.8, 1.05) if high else rng.uniform(0.9, 1.15))
        table[ENHANCING] = bright * float(rng.uniform(0.85, 1.05))
    elif sequence == "t2":
        table[EDEMA] = float(rng.uniform(1.7, 2.2))
        table[NECROTIC] = float(rng.uniform(1.9, 2.6))
        table[ENHANCING] = float(rng.uniform(1.5, 1.9))
    else:
        table[EDEMA] = dark + (0.08 if high else 0.0)
        table[NECROTIC] = dark - (0.12 if high else float(rng.uniform(-0.04, 0.1)))
        table[ENHANCING] = float(rng.uniform(1.5, 2.4)) if sequence == "t1ce" else dark + 0.1
    return table
