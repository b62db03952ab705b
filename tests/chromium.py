"""A headless Chromium that tests drive by its DevTools protocol, through the two pipes that it opens for that.

https://chromedevtools.github.io/devtools-protocol, and ``--remote-debugging-pipe``: messages of JSON that end in NUL,
read from descriptor 3 and written to 4.  So a browser is all that is needed, no driver that has to match it.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: WebGL 2 without a GPU, and a browser that asks nobody for anything by itself.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--hide-scrollbars", "--mute-audio", "--disable-dev-shm-usage"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-quic", "--disable-extensions", "--disable-default-apps", "--no-default-browser-check"),
)
#: Moves the two pipes to the descriptors that the browser looks at, and becomes the browser.
_START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
for number, pipe in enumerate(pipes, 3):
    os.dup2(pipe, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The browser that ``MEDSEG_CHROMIUM`` names, else the first on the path."""
    named = os.environ.get("MEDSEG_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A browser with one page, and what it logged and asked for.

    Args:
        program: the browser. profile: a folder for its profile, empty. size: (width, height) of the window.
        dark: whether the page is told that its reader prefers dark colours.
        timeout: seconds that any answer may take.

    Attributes:
        problems: of the console and of the browser's log, whatever is an error or a warning.
        requests: addresses that the page asked for.
    """

    def __init__(
        self,
        program: str,
        profile: Path,
        size: tuple[int, int] = (1280, 900),
        dark: bool = False,
        timeout: float = 60,
    ) -> None:
        self.timeout = timeout
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        self._number = 0
        self._rest = b""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        window = f"--window-size={size[0]},{size[1]}"
        command = [program, *FLAGS, window, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._browser = subprocess.Popen(
            [sys.executable, "-ISc", _START, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session: str | None = None
        try:
            targets = self.send("Target.getTargets")["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.send("Emulation.setEmulatedMedia", features=[scheme])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._browser.kill()
        self._browser.wait()
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and wait for what it returns; events on the way are noted."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.timeout
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def open(self, path: Path) -> None:
        """Open a file, by its ``file://`` address, and wait until it is loaded."""
        self._loaded = False
        self.send("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + self.timeout
        while not self._loaded:
            self._note(self._receive(end, "loading"))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, of a promise what it comes to."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and give its value."""
        end = time.monotonic() + self.timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} is not true after {self.timeout} s; {self.problems}")
            time.sleep(0.1)
        return value

    def screenshot(self, *, whole: bool = False) -> bytes:
        """The window, or the whole page, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _receive(self, end: float, waiting_for: str) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"\0" not in self._rest:
                if not selector.select(max(end - time.monotonic(), 0)):
                    raise TimeoutError(f"{waiting_for}: no answer of the browser in {self.timeout} s")
                block = os.read(self._read, 2**20)
                if not block:
                    raise RuntimeError(f"{waiting_for}: the browser ended with status {self._browser.wait()}")
                self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"][:200])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
            texts = [str(part.get("value", part.get("description"))) for part in parameters["args"]]
            self.problems.append(f"console.{parameters['type']}: {' '.join(texts)}")
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            self.problems.append(parameters["entry"]["text"])
