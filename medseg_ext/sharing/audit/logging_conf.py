"""Check ``logging.conf``, of which Python evaluates parts before a bundle's first config is read."""

from __future__ import annotations

import configparser
import re

from medseg_ext.sharing.findings import Finding, quoted
from medseg_ext.sharing.words import words

#: Streams of this process; a file, a socket or a mail would be somewhere of the bundle's choosing.
HANDLERS = frozenset({"StreamHandler", "logging.StreamHandler", "NullHandler", "logging.NullHandler"})
FORMATTERS = frozenset({"logging.Formatter", "Formatter"})
#: Options of each kind of section. What another version of Python may read besides, as ``defaults`` of a formatter,
#: may be evaluated by it.
OPTIONS = {
    "loggers": words("keys"),
    "handlers": words("keys"),
    "formatters": words("keys"),
    "logger": words("level handlers qualname propagate"),
    "handler": words("class level formatter args"),
    "formatter": words("class format datefmt style"),
}
_SECTION = re.compile(r"(loggers|handlers|formatters)|(logger|handler|formatter)_\w+")
_STREAM = re.compile(r"\(\s*(sys\.stdout|sys\.stderr)?\s*,?\s*\)")
_STYLES = frozenset("%$")


def check_logging(file: str, content: bytes) -> list[Finding]:
    """Check a logging configuration in Python's format of sections.

    Args:
        file: its path in the bundle.
        content: the file.

    Returns:
        Sections and options other than :data:`OPTIONS`, handlers other than streams, arguments other than
        ``sys.stdout`` and ``sys.stderr``, other formatters, interpolation, and whatever is no such file.
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
        match = _SECTION.fullmatch(section)
        if match is None:
            allowed = "loggers, handlers, formatters, logger_NAME, handler_NAME and formatter_NAME"
            findings.append(Finding(file, _line_of(text, section), "logging", f"[{quoted(section)}]", allowed))
            continue
        kind = match[1] or match[2]
        for option, value in parser.items(section):
            allowed = _allowed(kind, option, value)
            if allowed:
                add(section, option, value, allowed)
    return findings


def _allowed(kind: str, option: str, value: str) -> str:
    """What an option may be instead; empty for one that may be what it is."""
    if option not in OPTIONS[kind]:
        return ", ".join(sorted(OPTIONS[kind]))
    if option == "style":
        return "" if value.strip() in _STYLES else "% or $"
    if option in {"format", "datefmt"}:
        return ""
    if "%" in value:
        return "no interpolation"
    if option == "class":
        kinds = FORMATTERS if kind == "formatter" else HANDLERS
        wording = "logging.Formatter" if kind == "formatter" else "StreamHandler or NullHandler"
        return "" if value.strip() in kinds else wording
    if option == "args" and not _STREAM.fullmatch(value.strip()):
        return "(sys.stdout,) or (sys.stderr,)"
    return ""


def _line_of(text: str, section: str, option: str | None = None) -> int:
    """The line of an option, or of the head of a section."""
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("["):
            inside = line.strip() == f"[{section}]"
            if inside and option is None:
                return number
        elif inside and option is not None and re.match(rf"\s*{re.escape(option)}\s*[=:]", line, re.IGNORECASE):
            return number
    return 0
