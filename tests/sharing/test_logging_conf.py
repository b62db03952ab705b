"""Python's logging configuration: sections and options by name, for other versions of Python read others besides."""

from __future__ import annotations

import pytest
from attacks import LOGGING

from medseg_ext.sharing.audit.logging_conf import check_logging


def findings(text: str) -> list[str]:
    return [str(finding) for finding in check_logging("logging.conf", text.encode())]


@pytest.mark.parametrize(
    "added",
    [
        "",
        "datefmt=%H:%M:%S\n",
        "style=%\n",
        "class=logging.Formatter\n",
        "[logger_ignite]\nlevel=WARNING\nhandlers=stderr\nqualname=ignite\npropagate=0\n",
    ],
)
def test_allowed(added: str) -> None:
    assert findings(LOGGING + added) == []


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            "defaults={'x': 1}\n",
            "logging.conf:16: [logging] found defaults={'x': 1}, allowed class, datefmt, format, style",
        ),
        ("style={\n", "logging.conf:16: [logging] found style={, allowed % or $"),
        ("validate=1\n", "logging.conf:16: [logging] found validate=1, allowed class, datefmt, format, style"),
        (
            "[handler_x]\ntarget=stderr\n",
            "logging.conf:17: [logging] found target=stderr, allowed args, class, formatter, level",
        ),
        (
            "[logger_x]\nclass=StreamHandler\n",
            "logging.conf:17: [logging] found class=StreamHandler, allowed handlers, level, propagate, qualname",
        ),
        (
            "[tool:pytest]\naddopts=-p evil\n",
            "logging.conf:16: [logging] found [tool:pytest], allowed loggers, handlers, formatters, logger_NAME, "
            "handler_NAME and formatter_NAME",
        ),
    ],
)
def test_refused(added: str, said: str) -> None:
    assert findings(LOGGING + added) == [said]
