"""The one page a person opens first: ``summary.html``, one file, readable on a phone, no network needed."""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from medseg_ext.files import write_atomically
from medseg_ext.metrics.patient import Measure
from medseg_ext.reports.measures import LesionMeasures, StudyMeasures, format_value, label_of

DISCLAIMER = "Research use only. Not for clinical use."
#: Pictures beyond this many bytes together are linked to instead of embedded, or the page opens slowly.
_EMBED_BYTES = 12_000_000
PROVENANCE_LABELS = {
    "bundle": "Bundle",
    "weights": "Weights",
    "weights_sha256": "Weights, SHA-256",
    "command": "Command",
    "date": "Date",
    "revision": "Revision",
    "python": "Python",
    "packages": "Packages",
    "processor": "Processor",
    "platform": "Platform",
}


class Picture(NamedTuple):
    """A PNG file and what is said below it."""

    path: Path
    caption: str


def write_summary(
    path: Path,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    aggregate: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    provenance: Mapping[str, Any] | None = None,
    errors: Iterable[BaseException | str] = (),
    note: str = "",
    measures: StudyMeasures | None = None,
    pages: Mapping[str, Path] | None = None,
) -> Path:
    """Write the page.

    Args:
        path: the HTML file.
        title: heading.
        rows: one a patient, with ``patient`` and any of the measures; without a truth the page holds areas and volumes
            alone.
        aggregate: from the measures' ``summarise``.
        pictures: overlays, in the order in which they are shown.  Embedded, or linked to relative to the page where
            they come to more than 12 MB.
        provenance: text by name, from :func:`~medseg_ext.reports.provenance`; other names are shown as they are.
        errors: patients that failed, with the line that was printed for them.
        note: a sentence below the heading, as what data these are.
        measures: what the names in rows and aggregate stand for; :class:`~medseg_ext.reports.LesionMeasures` when None.
        pages: a page for each of some patients, in the folder of this one or below it, that their names lead to.

    Raises:
        InputError: the file cannot be written.
    """
    embed = sum(picture.path.stat().st_size for picture in pictures) <= _EMBED_BYTES
    failures = [" ".join(str(error).split()) for error in errors]
    measures = LesionMeasures() if measures is None else measures
    style = STYLE + _STYLE_REGIONS if any(measure.region for measure in measures.columns.values()) else STYLE
    body = "\n".join(
        part
        for part in (
            _header(title, note, len(rows), len(failures)),
            _headline(aggregate, measures),
            _failures(failures),
            _pictures(pictures, path.parent, embed),
            _patients(rows, measures, {name: _link(page, path.parent) for name, page in (pages or {}).items()}),
            _aggregate(aggregate, measures),
            _provenance(provenance or {}),
            f"<footer>{DISCLAIMER}</footer>",
        )
        if part
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return write_atomically(path, page)


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _header(title: str, note: str, patients: int, failed: int) -> str:
    counts = f"{patients} patient{'' if patients == 1 else 's'}"
    if failed:
        counts += f', <span class="bad">{failed} failed</span>'
    said = f"<p>{_escape(note)}</p>" if note else ""
    return f'<header><h1>{_escape(title)}</h1><p class="sub">{counts} · {DISCLAIMER}</p>{said}</header>'


def _headline(aggregate: Mapping[str, Any], measures: StudyMeasures) -> str:
    estimates, columns = measures.estimates(aggregate), measures.columns
    groups = ([name for name in group if name in estimates] for group in measures.headlines)
    cards = []
    for name in next(filter(None, groups), []):
        estimate = estimates[name]
        low, high = (format_value(name, bound, columns) for bound in estimate["ci95"])
        cards.append(
            f'<div class="card"><div class="what">{_escape(label_of(name, columns))}</div>'
            f'<div class="big">{format_value(name, estimate["mean"], columns)}</div>'
            f'<div class="small">mean; 95 % CI {low} to {high}<br>'
            f"median {format_value(name, estimate['median'], columns)}</div></div>"
        )
    return f'<section class="cards">{"".join(cards)}</section>' if cards else ""


def _failures(failures: Sequence[str]) -> str:
    if not failures:
        return ""
    items = "".join(f"<li>{_escape(failure)}</li>" for failure in failures)
    return f'<section class="failures"><h2>Failed</h2><ul>{items}</ul><p>Nothing was written for these.</p></section>'


def _pictures(pictures: Sequence[Picture], folder: Path, embed: bool) -> str:
    figures = []
    for picture in pictures:
        if embed:
            source = "data:image/png;base64," + base64.b64encode(picture.path.read_bytes()).decode()
        else:
            source = _link(picture.path, folder)
        caption = _escape(picture.caption)
        figures.append(
            f'<figure><img src="{source}" alt="{caption}" loading="lazy"><figcaption>{caption}</figcaption></figure>'
        )
    return f"<section><h2>Overlays</h2>{''.join(figures)}</section>" if figures else ""


def _link(path: Path, folder: Path) -> str:
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


def _patients(rows: Sequence[Mapping[str, Any]], measures: StudyMeasures, links: Mapping[str, str]) -> str:
    if not rows:
        return ""
    columns = measures.columns
    names = measures.shown(rows)
    lines = []
    for row in rows:
        cells = "".join(_cell(name, row.get(name), columns) for name in names)
        name = _escape(row.get("patient", ""))
        if row.get("patient") in links:
            name = f'<a href="{links[row["patient"]]}">{name}</a>'
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<section><h2>Patients</h2><div class="scroll"><table>'
        f"<thead>{_patients_head(names, columns)}</thead><tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _patients_head(names: Sequence[str], columns: Mapping[str, Measure]) -> str:
    """A line of headings; a second one below where measures are taken of several regions."""
    if not any(columns[name].region for name in names):
        head = "".join(
            f'<th title="{_escape(columns[name].protocol)}">{_escape(label_of(name, columns))}</th>' for name in names
        )
        return f"<tr><th>Patient</th>{head}</tr>"
    above, below = [], []
    for _, together in groupby(names, lambda name: columns[name]._replace(region="")):
        group = list(together)
        measure = columns[group[0]]
        label = label_of(group[0], {group[0]: measure._replace(region="")})
        span = f'colspan="{len(group)}"' if measure.region else 'rowspan="2"'
        above.append(f'<th class="group" {span} title="{_escape(measure.protocol)}">{_escape(label)}</th>')
        below += [f"<th>{_escape(columns[name].region)}</th>" for name in group if columns[name].region]
    return f'<tr><th rowspan="2">Patient</th>{"".join(above)}</tr><tr class="regions">{"".join(below)}</tr>'


def _cell(name: str, value: Any, columns: Mapping[str, Measure]) -> str:
    text = format_value(name, value, columns)
    if columns[name].share and isinstance(value, float) and math.isfinite(value):
        return f'<td class="bar" style="--part:{100 * min(max(value, 0.0), 1.0):.1f}%">{text}</td>'
    return f"<td>{text}</td>"


def _aggregate(aggregate: Mapping[str, Any], measures: StudyMeasures) -> str:
    estimates, columns = measures.estimates(aggregate), measures.columns
    if not estimates:
        return ""
    by_region = any(columns[name].region for name in estimates)
    lines = []
    for measure, together in groupby(estimates, lambda name: columns[name]._replace(region="")):
        group = list(together)
        label = label_of(group[0], {group[0]: measure})
        # a measure and its protocol stand once beside the lines of its regions
        span = f' rowspan="{len(group)}"' if len(group) > 1 else ""
        before = f'<th scope="row"{span}>{_escape(label)}</th>'
        after = f'<td class="protocol"{span}>{_escape(measure.protocol)}</td>'
        for name in group:
            estimate = estimates[name]
            low, high = (format_value(name, bound, columns) for bound in estimate["ci95"])
            region = f'<td class="region">{_escape(columns[name].region)}</td>' if by_region else ""
            lines.append(
                f"<tr>{before}{region}<td>{format_value(name, estimate['mean'], columns)}</td>"
                f"<td>{format_value(name, estimate['median'], columns)}</td><td>{low} to {high}</td>"
                f"<td>{estimate['n']}</td>{after}</tr>"
            )
            before = after = ""
    counts = measures.counts(aggregate)
    return (
        '<section><h2>All patients</h2><div class="scroll"><table><thead><tr><th>Measure</th>'
        f"{'<th>Region</th>' * by_region}<th>Mean</th>"
        "<th>Median</th><th>95 % CI of the mean</th><th>n</th><th>Protocol</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>{f'<p>{_escape(counts)}</p>' if counts else ''}"
        "<p>Intervals: percentile bootstrap over patients.</p></section>"
    )


def _provenance(entries: Mapping[str, Any]) -> str:
    if not entries:
        return ""
    lines = "".join(
        f"<dt>{_escape(PROVENANCE_LABELS.get(name, name))}</dt><dd>{_escape(value)}</dd>"
        for name, value in entries.items()
    )
    return f"<section><h2>How this came about</h2><dl>{lines}</dl></section>"


STYLE = """
:root{color-scheme:light dark;--ink:#1b2129;--soft:#5b6673;--line:#dde2e8;--page:#f5f7f9;--panel:#fff;
--bar:#cfeadf;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaee;--soft:#9aa5b1;--line:#333c46;--page:#14181d;--panel:#1c2229;
--bar:#1f4a3b;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:70rem;margin:0 auto;padding:1.25rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .6rem}
.sub,.small,figcaption,footer,.protocol,section>p{color:var(--soft);font-size:.88rem}
.sub{margin:0}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin-top:1.25rem}
.card,figure,.scroll,dl,.failures{background:var(--panel);border:1px solid var(--line);border-radius:.6rem}
.card{padding:.8rem 1rem}.what{font-size:.9rem}.big{font-size:2rem;font-weight:650;line-height:1.25}
.failures{margin-top:1.25rem;padding:.2rem 1.2rem .6rem;border-color:var(--bad)}
.failures h2{margin-top:.8rem;color:var(--bad)}.failures li{overflow-wrap:anywhere}
figure{margin:0 0 1rem;overflow:hidden}img{display:block;width:100%;height:auto;background:#000}
figcaption{padding:.5rem .8rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal;min-width:4.5rem}
th:first-child{text-align:left;position:sticky;left:0;background:var(--panel);font-weight:500}
tbody th:first-child{white-space:normal;overflow-wrap:anywhere;min-width:7rem}
tbody tr:last-child>*{border-bottom:0}
.bar{background:linear-gradient(90deg,var(--bar) var(--part),transparent var(--part))}
a{color:inherit}
td.protocol,thead th:last-child:nth-child(6){text-align:left;white-space:normal;min-width:16rem}
dl{margin:0;padding:.8rem 1rem;display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;font-size:.88rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:2rem;text-align:center}
@media(max-width:34rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{body{background:#fff}}
"""
_STYLE_REGIONS = """
thead th.group{text-align:center}
thead tr.regions th{position:static;min-width:0;text-align:right;font-weight:600}
td.region{text-align:left;color:var(--soft)}
tbody th[rowspan],td.protocol[rowspan]{vertical-align:top}
thead th:last-child:nth-child(7){text-align:left;white-space:normal;min-width:16rem}
"""
