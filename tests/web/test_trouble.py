"""Trouble with the page, in a real browser: it is said plainly, and nothing is lost."""

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.export.web import CONFIG, GRAPH
from tests.web.serving import serve
from tests.web.visitor import (
    CHROMIUM,
    FAKE,
    OFFLINE,
    QUIET,
    choose,
    download,
    enrol,
    exported_prints,
    needs_browser,
    open_page,
    result,
    wait_for_speech,
)

SOURCES = Path(__file__).resolve().parents[2] / "web" / "src" / "page"

pytestmark = [needs_browser, pytest.mark.usefixtures("detector")]


@pytest.mark.parametrize(("arguments", "words"), [([], "There is no microphone"), (FAKE[:1], "was refused")])
def test_a_missing_or_refused_microphone_is_said(playwright, site, arguments, words):
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *arguments])
    context = browser.new_context(permissions=[] if arguments else ["microphone"])
    context.set_default_timeout(60000)
    page = open_page(context, site.address)
    page.get_by_role("button", name="Record", exact=True).click()
    assert "Type a name first" in result(page, "Not yet")
    page.get_by_label("Name of the speaker").fill("Ada")
    page.get_by_role("button", name="Record", exact=True).click()
    assert words in result(page, "No microphone")
    assert page.get_by_role("button", name="Record", exact=True).is_enabled()
    browser.close()


def test_a_recording_without_speech_is_not_enrolled(context, site):
    page = open_page(context, site.address)
    page.get_by_label("Name of the speaker").fill("Ada")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    assert "No speech was heard" in result(page, "Not enrolled")
    assert exported_prints(page) == {}
    # And the next one is.
    page.get_by_role("button", name="Record", exact=True).click()
    wait_for_speech(page, 1)
    page.get_by_role("button", name="Stop").click()
    result(page, "Ada is enrolled")


def test_recordings_that_cannot_be_used_are_said_and_nothing_is_stored(context, site, speakers, tmp_path):
    page = open_page(context, site.address)
    page.get_by_label("Name of the speaker").fill("Ada")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "short.wav", np.full(160, 0.1), 16000)
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).normal(0, 0.01, 32000), 16000)
    soundfile.write(tmp_path / "broken.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "letter.wav").write_text("no recording")
    (tmp_path / "cut.flac").write_bytes(speakers[0][1].read_bytes()[:100])
    (tmp_path / "picture.mp4").write_bytes((SOURCES / "icon-192.png").read_bytes())
    (tmp_path / "empty.wav").touch()
    wrong = {
        "silent.wav": "too little speech",
        "short.wav": "0.01 s is too short",
        "hiss.wav": "too little speech",
        "broken.wav": "holds NaN or infinite samples",
        "letter.wav": "cannot read it",
        "cut.flac": "cannot read it",
        "picture.mp4": "cannot read it",
        "empty.wav": "is empty",
    }
    for name, words in wrong.items():
        # All or nothing: the good one is not stored either.
        page.locator("#files").set_input_files([speakers[0][0], tmp_path / name])
        page.locator("#result").get_by_text(words).wait_for()
        assert f"“{name}”" in result(page, "Not enrolled")
    choose(page, "Verify")
    page.locator("#files").set_input_files(speakers[0][0])
    assert "Nobody is enrolled yet" in result(page, "Not yet")
    choose(page, "Enrol")
    page.get_by_label("Name of the speaker").fill("unknown")
    page.locator("#files").set_input_files(speakers[0][0])
    assert "take another name" in result(page, "Not yet")
    assert exported_prints(page) == {}
    # What is worse than it could be, but a voice, is enrolled, and said.
    wav, rate = soundfile.read(speakers[0][0])
    soundfile.write(tmp_path / "loud.wav", (30 * wav).clip(-1, 1), rate)
    page.get_by_label("Name of the speaker").fill("Ada")
    page.locator("#files").set_input_files(tmp_path / "loud.wav")
    assert "⚠ Clipped, " in result(page, "Ada is enrolled")
    choose(page, "Verify")
    page.locator("#files").set_input_files(tmp_path / "silent.wav")
    assert "⚠ No speech in its 1 s." in result(page, "Different speakers")


def test_a_microphone_that_is_pulled_out_ends_the_recording(context, site):
    page = context.new_page()
    page.add_init_script(
        """const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (asked) => (window.microphone = await open(asked));"""
    )
    page.goto(site.address)
    page.get_by_text(OFFLINE).wait_for()
    page.get_by_label("Name of the speaker").fill("Ada")
    page.get_by_role("button", name="Record", exact=True).click()
    wait_for_speech(page, 1)
    page.evaluate("microphone.getTracks()[0].dispatchEvent(new Event('ended'))")
    assert "1 recording" in result(page, "Ada is enrolled")
    assert page.get_by_role("button", name="Record", exact=True).is_enabled()


def test_a_lost_network_and_a_damaged_model_are_said_and_repaired(newcomer, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "page")
    graph = (folder / GRAPH).read_bytes()
    with serve(folder) as site:
        page = newcomer.new_page()
        # Of the page's own files, the first visit has none in the browser's cache.
        site.lost = {"engine.js"}
        page.goto(site.address)
        page.get_by_text("The engine of the page stopped").wait_for()
        assert page.get_by_role("button", name="Record", exact=True).is_hidden()
        again = page.get_by_role("button", name="Try again")
        for lost, torn, words in (
            ({CONFIG}, set(), "The network was lost while the page was loading"),
            ({GRAPH}, set(), f"The network was lost while {GRAPH} was loading"),
            (set(), {GRAPH}, f"The network was lost while {GRAPH} was loading"),
        ):
            site.lost, site.torn = lost, torn
            again.click()
            page.locator("#status").get_by_text(words).wait_for()
            assert "Nothing is lost" in page.locator("#status").inner_text()
        site.lost, site.torn = set(), set()
        config = (folder / CONFIG).read_bytes()
        (folder / CONFIG).write_bytes(b"{")
        again.click()
        page.get_by_text(f"{CONFIG} is damaged").wait_for()
        (folder / CONFIG).write_bytes(config)
        os.utime(folder / CONFIG, (2e9, 2e9))  # a server tells browsers of new files by their time alone
        content = bytearray(gzip.decompress(graph))
        content[len(content) // 2] ^= 1  # of the same size, and well packed
        (folder / GRAPH).write_bytes(gzip.compress(bytes(content)))
        again.click()
        page.get_by_text(f"{GRAPH} is damaged").wait_for()
        (folder / GRAPH).write_bytes(graph)
        again.click()
        page.get_by_text(OFFLINE).wait_for()
        # What was loaded well the first time was not loaded again.
        assert site.asked.count("/runtime.wasm.brotli") == 1 and site.asked.count(f"/{GRAPH}") == 4
        # What is damaged in the browser itself is loaded anew.
        page.evaluate(
            """async () => { for (const name of await caches.keys()) {
              const cache = await caches.open(name);
              for (const request of await cache.keys())
                if (request.url.includes("unpacked/")) await cache.put(request, new Response("damaged"));
            } }"""
        )
        page.reload()
        page.get_by_text(OFFLINE).wait_for()
        assert site.asked.count(f"/{GRAPH}") == 5


def test_without_room_or_right_to_store_the_page_says_so(newcomer, site, speakers):
    page = newcomer.new_page()
    session = newcomer.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": site.address.rstrip("/"), "quotaSize": 100})
    page.goto(site.address)
    page.get_by_text("Ready, with the model").wait_for()
    page.get_by_label("Name of the speaker").fill("Ada")
    page.locator("#files").set_input_files(speakers[0][0])
    assert "no room left" in result(page, "Not enrolled")
    assert exported_prints(page) == {}
    page.add_init_script(
        "Object.defineProperty(window, 'indexedDB', {get() { throw new DOMException('it is forbidden'); }})"
    )
    page.reload()
    page.get_by_text("The voiceprints cannot be reached (it is forbidden)").wait_for()
    page.get_by_role("button", name="Try again").wait_for()


def test_full_storage_is_said_and_what_was_enrolled_is_kept(newcomer, site, exported, speakers, tmp_path):
    page = newcomer.new_page()
    session = newcomer.new_cdp_session(page)
    origin = {"origin": site.address.rstrip("/")}
    page_size = sum(part["bytes"] for part in json.loads((exported / CONFIG).read_text())["packed"].values())
    session.send("Storage.overrideQuotaForOrigin", origin | {"quotaSize": page_size + 1_500_000})
    page.goto(site.address)
    page.get_by_text(OFFLINE).wait_for()
    enrol(page, "Ada", speakers[0][0])
    # Some three megabytes, where one is left.
    kept = json.loads(download(page, page.get_by_role("button", name="Export").click).read_text())
    (row,) = kept["speakers"][0]["utterances"]
    many = [
        row | {"embedding": [1 + n // 192 if i == n % 192 else 0 for i in range(192)]} for n in range(3000)
    ]
    kept["speakers"] = [{"name": "Bela", "utterances": many}]
    (tmp_path / "many.json").write_text(json.dumps(kept))
    page.locator("#import").set_input_files(tmp_path / "many.json")
    text = result(page, "Not done")
    assert "no room left" in text and "Nothing was stored" in text
    assert {name: len(side) for name, side in exported_prints(page).items()} == {"Ada": 1}
    session.send("Storage.overrideQuotaForOrigin", origin)
    enrol(page, "Bela", speakers[1][0])
    assert list(exported_prints(page)) == ["Ada", "Bela"]
