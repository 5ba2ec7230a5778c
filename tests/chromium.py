"""A real headless Chromium for tests, driven through its DevTools pipe."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_S = 60
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


def executable() -> str:
    """The browser on PATH; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH (looked for {', '.join(NAMES)})")
    return found


class Page:
    """One tab. Everything that the page logged, threw or asked the network for is in `events`."""

    def __init__(self, browser: "Chromium", session: str) -> None:
        self.browser, self.session = browser, session
        self.events: list[dict] = []

    def call(self, method: str, **params):
        return self.browser.call(method, self.session, **params)

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file, at a size and under a system theme, and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        self.script("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.browser.read()

    def script(self, expression: str):
        """The value of a JavaScript expression, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def hover(self, selector: str) -> dict[str, float]:
        """Move the mouse to the middle of an element, after scrolling to it; gives the place."""
        x, y = self.script(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'center'});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return {"x": x, "y": y}

    def click(self, selector: str) -> None:
        """Press the mouse on an element."""
        place = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            left = {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **place, **left)

    def press(self, key: str) -> None:
        """Press a key on whatever has the focus."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, whole: bool = False) -> bytes:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def problems(self) -> list[str]:
        """What went wrong since the page was opened: exceptions, errors in the log."""
        wrong = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e["method"] in wrong]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


class Chromium:
    """A browser process; close it when done."""

    def __init__(self) -> None:
        program = executable()
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        read_end, self._out = os.pipe()
        self._in, write_end = os.pipe()
        # the browser reads commands on descriptor 3 and answers on 4
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read_end, write_end)]
        null = os.open(os.devnull, os.O_RDWR)
        moves = [(os.POSIX_SPAWN_DUP2, a, b) for a, b in zip(ends, (3, 4))]
        moves += [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        command = [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self._pid = os.posix_spawn(program, command, os.environ, file_actions=moves, setpgroup=0)
        for end in (read_end, write_end, *ends, null):
            os.close(end)
        self._ids, self._buffer = itertools.count(1), b""
        self._answers: dict[int, dict] = {}
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        """A new tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **params) -> dict:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while number not in self._answers:
            self.read()
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def read(self) -> None:
        """Take in what the browser sent: answers, and events of pages."""
        ready, _, _ = select.select([self._in], [], [], PATIENCE_S)
        assert ready, f"the browser said nothing for {PATIENCE_S} s"
        part = os.read(self._in, 1 << 20)
        assert part, "the browser has ended"
        *messages, self._buffer = (self._buffer + part).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].events.append(message)

    def close(self) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.profile, ignore_errors=True)
