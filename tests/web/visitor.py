"""What a visitor of the page does, by Playwright, and what they read."""

import base64
import importlib.util
import json
import shutil

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
OFFLINE = "works without a network"
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs a chromium on the path and the package playwright",
)


def open_page(context, address):
    """Open the page, and wait until it is ready and kept for offline use."""
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    page.get_by_text(OFFLINE).wait_for()
    return page


def wait_for_speech(page, seconds):
    """Wait until so much speech is heard, and give the loudest level on the way.

    The page's own rules forbid Playwright's way to wait for a function.
    """
    loudest = -np.inf
    for _ in range(600):
        level, speech = page.evaluate("['level', 'speech'].map((id) => document.getElementById(id).value)")
        loudest = max(loudest, level)
        if speech > seconds:
            return loudest
        page.wait_for_timeout(100)
    pytest.fail(f"no {seconds} s of speech were heard")


def choose(page, task):
    page.get_by_role("radio", name=task).check(force=True)


def enrol(page, name, files):
    choose(page, "Enrol")
    page.get_by_label("Name of the speaker").fill(name)
    page.locator("#files").set_input_files(files)
    page.get_by_role("heading", name=f"{name} is enrolled").wait_for()


def drop(page, path):
    """Drop a file on the page, as from a desktop."""
    make = """([content, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
        return transfer;
    }"""
    content = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(make, [content, path.name])
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def result(page, heading):
    page.locator("#result").get_by_role("heading", name=heading).first.wait_for()
    return page.locator("#result").inner_text()


def download(page, click):
    with page.expect_download() as started:
        click()
    return started.value.path()


def exported_prints(page):
    content = json.loads(download(page, page.get_by_role("button", name="Export").click).read_text())
    return {speaker["name"]: speaker["utterances"] for speaker in content["speakers"]}


def delete(page, name):
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text(f"{name} is no longer enrolled").wait_for()
