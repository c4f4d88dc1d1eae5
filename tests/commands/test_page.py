"""The page, in a real browser: upload two clips, read the decision, look at the attention."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import soundfile

from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION, voice

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio, of the extra 'page', is not installed"
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs a chromium on the path and the package playwright",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, wav in (
        ("one.wav", voice(2.0, 1)),
        ("other.wav", voice(2.5, 5)),
        ("short.wav", voice(0.02, 1)),
    ):
        soundfile.write(folder / name, wav, 16000)
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a page that `bccmt demo` serves."""
    folder = write_hub_folder(tmp_path_factory.mktemp("hub") / "hub", CALIBRATION)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "speechbrain_bccmt.cli",
        "demo",
        "-m",
        str(folder),
        "--no-browser",
        "--no-vad",  # to a detector, the voices of the tests are noise
        f"--port={port}",
    ]
    log = folder / "log.txt"
    options = {"stdout": open(log, "w"), "stderr": subprocess.STDOUT}
    if os.name == "posix":  # a shell's background job ignores Ctrl-C, and so would its children
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with options["stdout"], subprocess.Popen(command, **options) as process:
        try:
            address = f"http://127.0.0.1:{port}/"
            deadline = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(address, timeout=5).close()
                    if "The page is at" in log.read_text():
                        break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(log.read_text())
                    time.sleep(0.3)
            assert f"The page is at {address}" in log.read_text()
            yield address
            # The way to close it.
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0, log.read_text()
        finally:
            process.terminate()


@pytest.fixture
def page(address):
    """Open the page in headless Chromium, which reaches nothing but this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.goto(address)
        yield page
        browser.close()


def upload(page, side, path):
    page.locator("input[type=file]").first.set_input_files(path)
    # The waveform takes the place of the field for the upload, so that the next one is then the first.
    page.locator("audio, #waveform, .waveform-container").nth(side).wait_for(state="attached", timeout=30000)


@needs_gradio
@needs_browser
def test_two_clips_get_a_score_a_decision_and_their_attention(page, clips, tmp_path):
    upload(page, 0, clips / "one.wav")
    upload(page, 1, clips / "one.wav")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="Same speaker", exact=True).wait_for(timeout=60000)
    text = page.locator("#result").inner_text()
    assert "Score 1.000" in text and "threshold 0.300" in text and "probability" in text
    pictures = page.locator("img[src*='png']")
    pictures.nth(1).wait_for(timeout=60000)  # they come after the text
    assert pictures.count() == 2
    # A decision must not stand beside clips that it is not about.
    page.get_by_label("Clear").first.click()
    page.get_by_role("heading", name="Same speaker", exact=True).wait_for(state="hidden", timeout=60000)
    if folder := os.environ.get("KEEP_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/page.png", full_page=True)


@needs_gradio
@needs_browser
def test_a_clip_that_is_too_short_is_told_without_a_trace(page, clips):
    upload(page, 0, clips / "one.wav")
    upload(page, 1, clips / "short.wav")
    page.get_by_role("button", name="Compare").click()
    message = page.get_by_text("too short")
    message.wait_for(timeout=60000)
    assert "Second clip" in message.inner_text() and "Traceback" not in page.content()


@needs_gradio
@needs_browser
def test_nothing_to_compare_is_said(page):
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Record or upload a clip on both sides").wait_for(timeout=60000)


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_a_missing_gradio_names_the_extra(tmp_path):
    folder = write_hub_folder(tmp_path / "hub", CALIBRATION)
    done = subprocess.run(
        [sys.executable, "-m", "speechbrain_bccmt.cli", "demo", "-m", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "speechbrain_bccmt[page]" in done.stderr
