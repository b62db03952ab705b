"""From a page's content to HTML that a browser lets talk to nobody.

The page's policy allows the two scripts and the style that it holds, by their SHA-256, and nothing else: whatever a
name of a patient or a file might smuggle in is not run, and nothing is fetched
(https://www.w3.org/TR/CSP3/). Texts are escaped by Jinja.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from medseg_ext.errors import escaped
from medseg_ext.reports.html import niivue
from medseg_ext.reports.html.facts import Table
from medseg_ext.reports.html.volumes import PageVolume
from medseg_ext.reports.measures import Tissue
from medseg_ext.reports.summary import DISCLAIMER, PROVENANCE_LABELS, STYLE


@dataclass(frozen=True)
class View:
    """What the 3-D view shows.

    Attributes:
        backgrounds: sequences, the first one shown first.
        overlays: label maps by name, ``prediction`` and perhaps ``truth``.
        tissues: their values.
        place: where the cross-hair stands first, right-anterior-superior mm.
    """

    class Background(NamedTuple):
        """A sequence: its name in configs and in print, and its volume."""

        key: str
        label: str
        volume: PageVolume

    backgrounds: Sequence[Background]
    overlays: Mapping[str, PageVolume]
    tissues: Sequence[Tissue]
    place: Sequence[float]


@dataclass(frozen=True)
class PageContent:
    """Everything that a page shows.

    Attributes:
        title: what was segmented. patient: of whom.
        headline: label and value of what is printed large.
        warnings: sentences that a reader has to know.
        picture: base64 of a PNG file. caption: of it.
        view: see there.
        volumes: table of volumes. measures: of the comparison with a truth; None without one.
        input, settings, provenance: text by name.
    """

    title: str
    patient: str
    headline: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    picture: str
    caption: str
    view: View
    volumes: Table
    measures: Table | None
    input: Mapping[str, str]
    settings: Mapping[str, str]
    provenance: Mapping[str, str]


@cache
def _viewer() -> str:
    return base64.b64encode(niivue.compressed_script()).decode("ascii")


#: Of a page, whatever it is of.
BASE_BYTES = len(_viewer())


def render(content: PageContent) -> str:
    """The page."""
    script = _resource("study.js")
    tissues = {tissue.colour: number for number, tissue in enumerate(content.view.tissues)}
    style = f"{STYLE}{_resource('study.css')}" + "".join(
        f".tissue-{number}{{background:{colour}}}\n" for colour, number in tissues.items()
    )
    provenance = {PROVENANCE_LABELS.get(name, name): text for name, text in content.provenance.items()}
    return _template().render(
        content=content,
        provenance=provenance,
        made_by=" · ".join(content.provenance[name] for name in ("bundle", "date") if name in content.provenance),
        tissues=tissues,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        viewer=_viewer(),
        viewer_version=niivue.VERSION,
        licences=niivue.licences(),
        data=Markup(_data(content)),
        disclaimer=DISCLAIMER,
    )


def _data(content: PageContent) -> str:
    """What the script works on, as JSON that no HTML parser takes for the end of its element."""
    view = content.view
    data = {
        "patient": content.patient,
        "backgrounds": [
            {
                "key": one.key,
                "label": one.label,
                "data": one.volume.data,
                "low": one.volume.low,
                "high": one.volume.high,
            }
            for one in view.backgrounds
        ],
        "overlays": {name: volume.data for name, volume in view.overlays.items()},
        "tissues": [tissue._asdict() for tissue in view.tissues],
        "place": view.place,
    }
    return json.dumps(data).replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    def quoted(digest: bytes) -> str:
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    scripts = [hashlib.sha256(script.encode()).digest(), bytes.fromhex(niivue.SHA256)]
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(quoted, scripts))}",
            f"style-src {quoted(hashlib.sha256(style.encode()).digest())}",
            "img-src data: blob:",
            "connect-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = escaped
    return environment.from_string(_resource("study.html"))


@cache
def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
