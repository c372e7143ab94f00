"""The chat page in a real browser: a message is typed, the answer streams, stop stops, the second turn remembers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from browser import Watched, wait_for

import course
from appendix import g_chat as chat
from tools.doctor import find_browser

NO_GRADIO = find_spec("gradio") is None  # to import it takes seconds, which both workers would wait for
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(NO_GRADIO, reason="gradio is not installed: pip install -r requirements-chat.txt"),
    pytest.mark.skipif(find_browser() is None, reason="no Chromium found: install one, or name it with COURSE_BROWSER"),
]

CONVERSATION = "document.querySelector('[role=log]').innerText"
SPEED = "[...document.querySelectorAll('textarea')].find(each => each.disabled && each.rows > 1)?.value || ''"
IDLE = "[...document.querySelectorAll('button')].some(each => each.innerText === 'Send')"
PLANTED = (
    "<script>window.hacked = 1</script><img src='https://evil.example/seen' onerror='window.hacked = 1'> "
    "![picture](https://evil.example/too) <b>bold</b> [link](javascript:window.hacked=1) a < b &lt; c"
)


class Chat(Watched):
    """A browser at the chat page."""

    def type(self, text: str) -> None:
        """Type a message into the box that has the focus, and press Enter."""
        wait_for(lambda: self.evaluate("document.activeElement.tagName") == "TEXTAREA", 20, "the focus")
        self.call("Input.insertText", text=text)
        self.press_enter()

    def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def text(self) -> str:
        return self.evaluate(CONVERSATION)

    def wait_for_text(self, text: str) -> str:
        return wait_for(lambda: text in self.text() and self.text(), 20, repr(text), pause=0.05)

    def wait_until_idle(self) -> None:
        wait_for(lambda: self.evaluate(IDLE), 20, "the end of the answer", pause=0.1)


class Scripted:
    """Stands in for the model: says what the last message asks for, and notes what it was given."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.pieces = 0
        self.closed = threading.Event()

    def __call__(self, model, tokenizer, prompt, **settings):
        self.prompts.append(prompt)
        question = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        text = {
            "think": "<think>\nFirst I wonder.\n" + "Hm. " * 15 + "</think>\n\nNow I know.",
            "count": " ".join(map(str, range(1, 400))),
            "attack": f"<think>\n{PLANTED}</think>\n\n{PLANTED} the end",
        }.get(question, f"You said {question}.")
        self.closed.clear()
        try:
            for start in range(0, len(text), 6):
                self.pieces += 1
                yield text[start : start + 6]
                time.sleep(0.03)
        finally:
            self.closed.set()


@contextmanager
def opened(address: str, profile):
    """The page in a browser, ready for a message."""
    with Chat(find_browser(), profile) as browser:
        browser.open(address)
        wait_for(lambda: browser.evaluate("document.querySelector('textarea') !== null"), 60, "the page")
        yield browser


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        stand_in = Scripted()
        patch.setattr(chat, "stream", stand_in)
        yield stand_in


@pytest.fixture(scope="module")
def looked_up():
    """Every host whose address the server's side looks up."""
    hosts, look_up = set(), socket.getaddrinfo

    def noted(host, *arguments, **options):
        hosts.add(host)
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted)
        yield hosts


@pytest.fixture(scope="module")
def address(script, looked_up):
    from appendix import g_chat_app as app

    page = app.build_page()
    _, place, _ = page.launch(**app.launch_options(), quiet=True, prevent_thread_lock=True)
    yield place
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    with opened(address, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def fresh(browser, address):
    """The page, loaded anew."""
    browser.evaluate("window.before = true")
    browser.open(address)
    loaded = "!window.before && document.querySelector('textarea') !== null"
    wait_for(lambda: browser.evaluate(loaded), 60, "the page")
    return browser


def test_the_answer_streams_and_the_thinking_folds(fresh):
    fresh.type("think")
    seen = []
    end = time.monotonic() + 20
    while "Now I know." not in (seen[-1] if seen else "") and time.monotonic() < end:
        seen.append(fresh.text())
        time.sleep(0.05)
    counts = [text.count("Hm.") for text in seen if "First I wonder." in text]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 4, "the thinking grows while it is open"
    fresh.wait_until_idle()
    wait_for(lambda: "First I wonder." not in fresh.text(), 10, "the thinking to fold once it is closed")
    fold = "document.querySelector('[role=log] [role=button]')"
    fresh.evaluate(f"{fold}.focus()")
    fresh.press_enter()
    fresh.wait_for_text("First I wonder.")
    speed = wait_for(lambda: fresh.evaluate(SPEED), 10, "the line about the speed")
    assert "tokens/s; prompt of" in speed


def test_stop_stops_and_the_second_turn_remembers(fresh, script):
    fresh.type("count")
    fresh.wait_for_text("10 11 12")
    fresh.click("button", "Stop")
    assert script.closed.wait(10), "the model is stopped"
    fresh.wait_until_idle()
    pieces, text = script.pieces, fresh.text()
    time.sleep(0.5)
    assert (script.pieces, fresh.text()) == (pieces, text)
    assert "399" not in text
    fresh.type("what was it?")
    fresh.wait_for_text("You said what was it?.")
    assert "<|im_start|>user\ncount<|im_end|>\n<|im_start|>assistant\n1 2 3" in script.prompts[-1]
    assert script.prompts[-1].count("<|im_start|>user") == 2
    fresh.wait_until_idle()
    fresh.click("button[aria-label=Retry]")
    wait_for(lambda: len(script.prompts) > 1 and script.prompts[-1] == script.prompts[-2], 10, "the repetition")


def test_what_a_model_or_a_reader_writes_is_text(fresh, script):
    fresh.type("attack")
    text = fresh.wait_for_text("the end")
    assert f"{PLANTED} the end" in text
    fresh.wait_until_idle()
    fresh.evaluate("document.querySelector('[role=log] [role=button]').click()")
    wait_for(lambda: fresh.text().count(PLANTED) == 2, 10, "the thinking")
    fresh.type(PLANTED)
    wait_for(lambda: fresh.text().count(PLANTED) == 4, 20, "the message and its echo")
    assert PLANTED in script.prompts[-1]
    found = "document.querySelectorAll('[role=log] img, [role=log] script, [role=log] b, [role=log] a').length"
    assert fresh.evaluate(found) == 0
    assert fresh.evaluate("window.hacked") is None


def test_a_model_that_is_not_there_is_a_sentence_and_the_chat_goes_on(fresh, monkeypatch):
    def fail(name):
        raise ConnectionError("The hub cannot be reached for this model: check the network.")

    with monkeypatch.context() as patch:
        patch.setattr("appendix.g_chat_app.load_once", fail)
        fresh.type("Hello")
        fresh.wait_for_text("The hub cannot be reached for this model: check the network.")
        fresh.wait_until_idle()
    fresh.type("And now?")
    fresh.wait_for_text("You said And now?.")


SETTINGS = "document.querySelector('.sidebar').getBoundingClientRect()"
UNDER_THE_MIDDLE = "document.elementFromPoint(innerWidth / 2, innerHeight / 2).closest('.sidebar') !== null"


def test_on_a_phone_the_settings_are_folded_at_first(browser, address):
    def size(width):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        browser.evaluate("window.before = true")
        browser.open(address)
        there = "!window.before && document.querySelector('.sidebar.open, .sidebar .toggle-button') !== null"
        wait_for(lambda: browser.evaluate(there), 60, "the page")

    try:
        size(420)
        wait_for(lambda: browser.evaluate(f"{SETTINGS}.right <= 0"), 10, "the settings to fold")
        time.sleep(1)
        assert browser.evaluate(f"{SETTINGS}.right <= 0"), "and they stay so"
        assert not browser.evaluate(UNDER_THE_MIDDLE)
        browser.evaluate("document.querySelector('.sidebar .toggle-button').click()")
        wait_for(lambda: browser.evaluate(f"{SETTINGS}.left >= 0"), 10, "the settings to unfold")
        size(1300)
        wait_for(lambda: browser.evaluate(f"{SETTINGS}.left >= 0"), 10, "the settings, which have room there")
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_every_control_has_a_name(fresh):
    nodes = fresh.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "slider", "spinbutton", "checkbox", "combobox"}
    names = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") in roles]
    assert all(names)
    for label in ("Your message", "Model", "Temperature", "Most tokens", "Let it think", "Length and speed"):
        assert any(label in name for name in names), label


def test_no_other_host_is_asked_for_anything(browser, address, looked_up):
    """Stands last: over all that the browser, and Gradio behind the page, did before."""
    assert browser.asked() == {urllib.parse.urlsplit(address).netloc}
    assert looked_up <= {"127.0.0.1", "localhost", None}


SERVE = f"""
import sys; sys.path.insert(0, {str(course.ROOT)!r})
import course
course.set_up = lambda *_: sys.executable
sys.exit(course.main(["chat", "--no-browser", "--temperature", "0"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="ending a group of processes is not dependable on Windows")
def test_the_command_serves_the_tiny_model(tmp_path):
    """Also behind a proxy, which must not be asked for the reader's own machine."""
    dead = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env={**os.environ, **dead},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        line = server.stdout.readline()
        assert line.startswith("The chat is at http://127.0.0.1:")
        address = line.split()[4]
        with opened(address, tmp_path) as browser:
            browser.type("Compute 3+4.")
            browser.wait_for_text("\\boxed{7}")
            browser.wait_until_idle()
            assert browser.asked() == {urllib.parse.urlsplit(address).netloc}
    finally:
        os.killpg(server.pid, 2)
        status = server.wait(20)
        server.stdout.close()
    assert status == 0
