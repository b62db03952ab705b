"""A study's page as a browser shows it, from a file, with WebGL in software."""

import base64
import io

import numpy as np
import pytest
from chromium import Page, find_chromium
from html_page import HOSTILE, write_page
from PIL import Image

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path (MEDSEG_CHROMIUM names one)")

#: Drawn and read in one go: WebGL keeps nothing of a frame afterwards.
PIXELS = """(() => {
  view.drawScene();
  const {gl} = view, {drawingBufferWidth: width, drawingBufferHeight: height} = gl;
  const pixels = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let text = "";
  for (let at = 0; at < pixels.length; at += 8192) text += String.fromCharCode(...pixels.subarray(at, at + 8192));
  return btoa(text);
})()"""


def canvas_of(page):
    """(N, 3) colours of what WebGL drew."""
    pixels = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return pixels.reshape(-1, 4)[:, :3]


def choose(page, name, value):
    """Set one of the controls as a person would."""
    page.evaluate(
        f"(() => {{ const one = document.getElementById('{name}'); one.value = {value!r};"
        " one.dispatchEvent(new Event('input', {bubbles: true})); one.dispatchEvent(new Event('change')); })()"
    )


def coloured(colours):
    """How many pixels have a strong hue, as only the label map has: the cross-hair is a pale blue."""
    spread = np.ptp(colours.astype(int), axis=1)
    return int((spread > 80).sum())


def screenshot(page):
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


@pytest.fixture(scope="module")
def written(tumour, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page with space")
    return write_page(folder, tumour, patient=HOSTILE, meta={"notes": HOSTILE}, provenance={"command": HOSTILE})[0]


@pytest.fixture(scope="module")
def page(written, tmp_path_factory):
    with Page(CHROMIUM, tmp_path_factory.mktemp("profile"), size=(900, 640), timeout=120) as page:
        page.open(written)
        page.wait_for("document.documentElement.dataset.view")
        yield page


def test_opens_without_errors_and_asks_nobody(page):
    assert page.evaluate("document.documentElement.dataset.view") == "ready"
    assert page.evaluate("document.getElementById('status').hidden")
    assert page.problems == []
    assert page.requests[0].startswith("file://")
    assert {address.split(":")[0] for address in page.requests[1:]} <= {"data", "blob"}
    assert page.evaluate("document.querySelector('h1').textContent") == HOSTILE


def test_the_canvas_is_drawn_and_obeys(page):
    both = canvas_of(page)
    assert len(np.unique(both, axis=0)) > 100
    assert (both.max(1) > 50).mean() > 0.1, "a head fills more than a tenth"
    assert coloured(both) > 500
    page.evaluate("document.querySelector('[name=overlay][value=\"\"]').click()")
    assert coloured(canvas_of(page)) < coloured(both) / 20
    page.evaluate("document.querySelector('[name=overlay][value=truth]').click()")
    truth = canvas_of(page)
    assert coloured(truth) > 500 and (truth != both).any(), "the prediction was moved"
    page.evaluate("document.querySelector('[name=overlay][value=prediction]').click()")
    np.testing.assert_array_equal(canvas_of(page), both)
    for control, value, back in (
        ("background", "1", "0"),
        ("opacity", "1", "0.55"),
        ("layout", "4", "3"),
        ("cut", "0.4", "0"),
    ):
        choose(page, control, value)
        assert (canvas_of(page) != both).any(), control
        choose(page, control, back)
    np.testing.assert_array_equal(canvas_of(page), both)
    assert page.problems == []


def test_the_cross_hair_stands_in_the_tumour(page):
    page.evaluate("document.querySelector('[name=overlay][value=prediction]').click()")
    page.evaluate("document.getElementById('home').click()")
    said = page.evaluate("document.getElementById('location').textContent")
    assert "mm: " in said and said.split("mm: ")[1] in {"necrotic and non-enhancing core", "edema", "enhancing tumour"}


def test_the_screenshot_is_not_empty(page):
    page.evaluate("document.getElementById('canvas').scrollIntoView()")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown = screenshot(page)
    left, top, right, bottom = page.evaluate(
        "(({left, top, right, bottom}) => [left, top, right, bottom])"
        "(document.getElementById('canvas').getBoundingClientRect())"
    )
    canvas = shown[int(top) : int(bottom), int(left) : int(right)].reshape(-1, 3)
    assert len(np.unique(canvas, axis=0)) > 100
    assert (canvas.max(1) > 50).mean() > 0.1
    assert coloured(canvas) > 500
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > len(np.unique(canvas, axis=0))


def test_the_policy_stops_whatever_gets_in(page):
    before = len(page.problems)
    attempts = (
        "fetch('https://example.org/').then(() => 'fetched', () => 'refused')",
        "new Promise(done => { const one = new Image(); one.onload = () => done('fetched');"
        " one.onerror = () => done('refused'); one.src = 'https://example.org/a.png'; })",
        "(() => { const one = document.createElement('script'); one.textContent = 'globalThis.ran = true';"
        " document.body.append(one); return globalThis.ran ? 'ran' : 'refused'; })()",
    )
    assert [page.evaluate(attempt) for attempt in attempts] == ["refused"] * 3
    said = page.problems[before:]
    del page.problems[before:]
    assert sum("Content Security Policy" in problem for problem in said) >= 3


def test_it_is_complete_without_javascript(written, page):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(written)
        shown = screenshot(page)
        said = page.evaluate("document.body.innerText")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert "This part needs JavaScript" in said and "Volumes" in said and "Research use only" in said
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50
