"""A headless Chromium that opens a page and says what it saw, over its DevTools protocol.

To look at a report: PYTHONPATH=tests/benchmark python tests/benchmark/browser.py OUT/report.html PICTURES
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from patience import PATIENCE

DESKTOP, PHONE = (1280, 800), (390, 844)


def installed() -> str | None:
    """The program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Page:
    """One tab; `events` holds whatever the browser reported since it was opened."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        self.events: list[dict[str, Any]] = []
        self.sent = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are kept."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.sent:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url: str, size: tuple[int, int]) -> None:
        """Load it in a window of this size, and wait until that is done."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        while self.evaluate("document.readyState") != "complete":
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What is in the window, or the whole page."""
        options: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
            options = {"clip": clip, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def pdf(self, path: Path) -> None:
        """As it would be printed."""
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a Chromium of its own, with a profile of its own."""
    program = installed()
    assert program, "no Chromium is installed"
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",  # which root cannot have
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Page(_address(Path(profile) / "DevToolsActivePort"))
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def _address(port_file: Path) -> str:
    import urllib.request

    deadline = time.monotonic() + PATIENCE
    while not port_file.exists() or not port_file.read_text().strip():
        assert time.monotonic() < deadline, "Chromium did not start in time"
        time.sleep(0.05)
    port = port_file.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = json.load(answer)
    return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")


def main(report: Path, folder: Path) -> None:
    """Screenshots on a desk and on a phone, and a print."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as page:
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            page.open(report.resolve().as_uri(), size)
            page.screenshot(folder / f"{name}-first.png")
            page.screenshot(folder / f"{name}-whole.png", whole=True)
            print(name, "scroll width", page.evaluate("document.documentElement.scrollWidth"), "of", size[0])
        page.pdf(folder / "print.pdf")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
