"""NiiVue, the viewer of volumes in a page (https://github.com/niivue/niivue), as its makers distribute it.

``niivue.umd.js.gz`` is ``dist/niivue.umd.js`` of the npm package ``@niivue/niivue``, compressed, for pages carry it so;
``LICENSE.txt`` belongs to it. To take another version: ``npm pack @niivue/niivue``, compress that file with
``gzip -9n``, and change the two constants and the licences.
"""

from __future__ import annotations

from importlib.resources import files

VERSION = "0.69.0"
#: Of the script as it is distributed, not compressed.
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def compressed_script() -> bytes:
    """The script, which defines the global ``niivue``, compressed by gzip."""
    return (files(__name__) / "niivue.umd.js.gz").read_bytes()


def licences() -> str:
    """The licence of NiiVue and of what it holds of others, which has to go wherever the script goes."""
    return (files(__name__) / "LICENSE.txt").read_text(encoding="utf-8")
