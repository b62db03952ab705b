"""What counts as done: results and notes that are there, of the same settings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from study_files_of import study_named

from medseg_ext.workflow import CaseRecords
