"""A headless Chromium driven over its DevTools protocol, as far as the tests need it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
from pathlib import Path

import websocket

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
    "--window-size=1400,1000",
    "--remote-debugging-port=0",
)


def wait_for(condition, seconds: float, what: str, pause: float = 0.25):
    """Ask until the condition gives something true, and return that; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"after {seconds} s still waiting for {what}")


class Browser:
    """One headless browser with one page; use it in a with statement."""

    def __init__(self, executable: str, profile: Path) -> None:
        self.profile = profile
        command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.number = 0

    def __enter__(self) -> Browser:
        try:
            port_file = self.profile / "DevToolsActivePort"
            lines = wait_for(lambda: port_file.exists() and port_file.read_text().split(), 60, "the browser")
            self.socket = websocket.create_connection(
                f"ws://127.0.0.1:{lines[0]}{lines[1]}", suppress_origin=True, timeout=60
            )
            self.session = None
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)

    def call(self, method: str, **parameters):
        """Send one command and return its result, leaving out the events that arrive meanwhile."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str):
        """Value of a JavaScript expression in the page; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def click(self, selector: str, text: str = "") -> None:
        """Click on the middle of the first visible element that fits a CSS selector and holds a text."""
        script = f"""(() => {{
            const fits = element => element.textContent.includes({json.dumps(text)}) && element.offsetParent;
            const element = [...document.querySelectorAll({json.dumps(selector)})].find(fits);
            if (!element) return null;
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = wait_for(lambda: self.evaluate(script), 60, f"{selector} with the text {text!r}")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


class Watched(Browser):
    """A browser that notes every address its page asks for."""

    def __enter__(self) -> Watched:
        super().__enter__()
        self.heard: list[str] = []
        receive = self.socket.recv

        def recv():
            self.heard.append(receive())
            return self.heard[-1]

        self.socket.recv = recv
        self.call("Network.enable")
        return self

    def asked(self) -> set[str]:
        """The hosts that were asked for anything, blocked requests included; data: and blob: have none."""
        events = [event for event in map(json.loads, self.heard) if "method" in event]
        addresses = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        assert addresses
        return {urllib.parse.urlsplit(address).netloc for address in addresses} - {""}
