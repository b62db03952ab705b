"""Check ``logging.conf``, of which Python evaluates parts before a bundle's first config is read."""

from __future__ import annotations

import configparser
import re

from medseg_ext.sharing.findings import Finding, quoted

#: Streams of this process; a file, a socket or a mail would be somewhere of the bundle's choosing.
HANDLERS = frozenset({"StreamHandler", "logging.StreamHandler", "NullHandler", "logging.NullHandler"})
FORMATTERS = frozenset({"logging.Formatter", "Formatter"})
_STREAM = re.compile(r"\(\s*(sys\.stdout|sys\.stderr)?\s*,?\s*\)")


def check_logging(file: str, content: bytes) -> list[Finding]:
    """Check a logging configuration in Python's format of sections.

    Args:
        file: its path in the bundle.
        content: the file.

    Returns:
        Handlers other than streams, arguments other than ``sys.stdout`` and ``sys.stderr``, other formatters,
        interpolation, and whatever is no such file.
    """
    try:
        text = content.decode("utf-8")
        parser = configparser.RawConfigParser()
        parser.read_string(text)
    except (UnicodeDecodeError, configparser.Error) as error:
        return [
            Finding(
                file, 0, "logging", f"no logging configuration ({type(error).__name__})", "sections of Python's logging"
            )
        ]
    findings = []

    def add(section: str, option: str, value: str, allowed: str) -> None:
        findings.append(Finding(file, _line_of(text, section, option), "logging", f"{option}={quoted(value)}", allowed))

    for option, value in parser.defaults().items():
        add("DEFAULT", option, value, "no [DEFAULT]")
    for section in parser.sections():
        for option, value in parser.items(section):
            wording = option in {"format", "datefmt"}
            if not wording and "%" in value:
                add(section, option, value, "no interpolation")
            elif option == "class":
                kinds = FORMATTERS if section.startswith("formatter") else HANDLERS
                if value.strip() not in kinds:
                    add(
                        section,
                        option,
                        value,
                        "StreamHandler or NullHandler" if kinds is HANDLERS else "logging.Formatter",
                    )
            elif (option == "args" and not _STREAM.fullmatch(value.strip())) or option == "kwargs":
                add(section, option, value, "(sys.stdout,) or (sys.stderr,)")
    return findings


def _line_of(text: str, section: str, option: str) -> int:
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("["):
            inside = line.strip() == f"[{section}]"
        elif inside and re.match(rf"\s*{re.escape(option)}\s*[=:]", line, re.IGNORECASE):
            return number
    return 0
