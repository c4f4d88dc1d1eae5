"""The page in a real browser: it agrees with Python, keeps to itself, and can be used by everybody."""

import json
import re

import matplotlib
import numpy as np
import pytest
import soundfile
from scipy.signal import fftconvolve

from speechbrain_bccmt.attention.clip_attention import attend_to_clip
from speechbrain_bccmt.export.web import GRAPH
from speechbrain_bccmt.export.weights import shrink_weights
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.models import resolve_model
from tests.web.serving import serve
from tests.web.test_library import cosine
from tests.web.visitor import (
    OFFLINE,
    choose,
    delete,
    download,
    drop,
    enrol,
    exported_prints,
    needs_browser,
    open_page,
    result,
    wait_for_speech,
)

pytestmark = [needs_browser, pytest.mark.usefixtures("detector")]


def test_files_are_enrolled_verified_identified_and_deleted_as_in_python(
    context, site, speakers, opus, model, tmp_path
):
    ada, bela = speakers
    # The page's weights have 16 bits.
    small = shrink_weights(resolve_model("tiny") / "waveform.onnx", tmp_path / "small.onnx", "float16")
    of_the_page = GraphVerifier(small, model.calibration)
    page = open_page(context, site.address)
    enrol(page, "Ada", ada[:3])
    enrol(page, "Bela", bela[:3])
    for name, files in (("Ada", ada), ("Bela", bela)):
        for utterance, path in zip(exported_prints(page)[name], files[:3], strict=True):
            expected = model.embed_file(path)
            assert cosine(utterance["embedding"], expected.embedding) > 0.99999, path
            assert utterance["speech_seconds"] == pytest.approx(expected.speech_seconds, abs=1e-3)
    # The same recording again counts once.
    enrol(page, "Ada", ada[0])
    assert "3 recordings" in page.locator("#result").inner_text()

    choose(page, "Verify")
    page.get_by_label("Who do they claim to be?").select_option("Ada")
    for path, heading in ((ada[3], "Same speaker"), (bela[3], "Different speakers")):
        page.locator("#files").set_input_files(path)
        text = result(page, heading)
        expected = of_the_page.verify_files(ada[:3], path)
        score, threshold = re.search(r"Score (-?[\d.]+), threshold ([\d.]+\d)", text).groups()
        assert float(score) == pytest.approx(expected.score, abs=6e-4)
        assert float(threshold) == pytest.approx(expected.threshold, abs=6e-4)
        if shown := re.search(r"Ada: ([\d.]+) %", text):
            assert float(shown[1]) / 100 == pytest.approx(expected.probability, abs=6e-4)
        else:
            assert "below 0.1 %" in text and expected.probability < 1.1e-3
        assert "5 % before listening" in text
        assert bool(expected.decision) is (heading == "Same speaker")

    # A threshold of one's own stands in for the model's.
    page.get_by_label("Threshold").fill("2")
    page.locator("#files").set_input_files(bela[3])
    assert "from -1 to 1" in result(page, "Not yet")
    page.get_by_label("Threshold").fill("-0.9")
    page.locator("#files").set_input_files(bela[3])
    assert "threshold -0.900" in result(page, "Same speaker")
    page.get_by_label("Threshold").fill("")

    choose(page, "Identify")
    page.locator("#files").set_input_files([ada[4], bela[4]])
    text = result(page, "Bela")
    assert text.index("✓ Ada") < text.index("✓ Bela")

    choose(page, "Enrol")
    page.get_by_label("Name of the speaker").fill("Carl")
    drop(page, opus)
    result(page, "Carl is enrolled")
    (utterance,) = exported_prints(page)["Carl"]
    assert cosine(utterance["embedding"], model.embed_file(opus).embedding) > 0.999

    delete(page, "Carl")
    delete(page, "Ada")
    assert page.locator("#speakers li").count() == 1
    choose(page, "Identify")
    page.locator("#files").set_input_files(ada[4])
    assert "Ada" not in result(page, "Unknown speaker")
    assert list(exported_prints(page)) == ["Bela"]
    assert not page.errors


def test_after_the_first_load_no_request_leaves(newcomer, exported, speakers):
    with serve(exported) as site:
        ada, bela = speakers
        page = open_page(newcomer, site.address)
        sent = []
        newcomer.on("request", lambda request: sent.append(request.url))
        assert f"/{GRAPH}" in site.asked and "/config.json" in site.asked  # it counts
        site.asked.clear()
        enrol(page, "Ada", ada[:2])
        choose(page, "Verify")
        page.locator("#files").set_input_files(bela[0])
        result(page, "Different speakers")
        page.get_by_role("button", name="Record", exact=True).click()
        page.locator("#live").get_by_text("Score").wait_for()
        page.get_by_role("button", name="Stop").click()
        result(page, "Same speaker")
        delete(page, "Ada")
        enrol(page, "Bela", bela[:2])
        assert site.asked == []
        assert [url for url in sent if not url.startswith(("blob:", f"{site.address}recorder.js"))] == []

        # Loaded again, the browser asks for a newer page, and for nothing else.
        page.reload()
        page.get_by_text(OFFLINE).wait_for()
        assert set(site.asked) <= {"/service-worker.js"}

        # And there need not be a server.
        newcomer.set_offline(True)
        site.lost = {"", "service-worker.js"}
        page.reload()
        page.get_by_text(OFFLINE).wait_for()
        choose(page, "Identify")
        page.locator("#files").set_input_files(bela[2])
        result(page, "Bela")
        assert not page.errors


def test_the_microphone_is_recorded_as_it_is(context, site, model, microphone):
    page = open_page(context, site.address)
    page.get_by_label("Name of the speaker").fill("Ada")
    page.get_by_role("button", name="Record", exact=True).click()
    assert -50 < wait_for_speech(page, 3) < 0
    page.get_by_role("button", name="Stop").click()
    assert "1 recording" in result(page, "Ada is enrolled")
    (utterance,) = exported_prints(page)["Ada"]
    save = """() => { const link = document.createElement("a"); link.download = "clip.wav";
        link.href = document.querySelector("audio").src; link.click(); }"""
    clip = download(page, lambda: page.evaluate(save))
    assert cosine(utterance["embedding"], model.embed_file(clip).embedding) > 0.99999
    # It is what was said into the microphone, which says it again and again.
    said, heard = soundfile.read(microphone)[0], soundfile.read(clip)[0][8000:32000]
    said = np.concatenate([said, said])
    energies = fftconvolve(said**2, np.ones(len(heard)), mode="valid").clip(1e-3)
    correlations = fftconvolve(said, heard[::-1], mode="valid") / np.sqrt(energies * (heard @ heard))
    assert correlations.max() > 0.98
    assert utterance["speech_seconds"] > 3


def test_two_tabs_write_at_once_and_see_each_other(context, site, speakers, exported, tmp_path):
    first, second = (open_page(context, site.address) for _ in range(2))
    for page, files in ((first, speakers[0]), (second, speakers[1])):
        page.get_by_label("Name of the speaker").fill("Ada" if page is first else "Bela")
        page.locator("#files").set_input_files(files[:2])
    for page in (first, second):
        page.locator("#speakers li").nth(1).wait_for()
        assert {name: len(side) for name, side in exported_prints(page).items()} == {"Ada": 2, "Bela": 2}
    # Under one name as well.
    for page, files in ((first, speakers[0]), (second, speakers[1])):
        page.get_by_label("Name of the speaker").fill("Carl")
        page.locator("#files").set_input_files(files[2:4])
    first.get_by_text("4 recordings").first.wait_for()
    assert len(exported_prints(second)["Carl"]) == 4
    delete(first, "Carl")
    second.get_by_text("Carl").first.wait_for(state="detached")
    kept = download(first, first.get_by_role("button", name="Export").click)
    first.get_by_role("button", name="Delete all").click()
    first.get_by_role("dialog").get_by_role("button", name="Keep").click()
    assert first.locator("#speakers li").count() == 2
    first.get_by_role("button", name="Delete all").click()
    first.get_by_role("dialog").get_by_role("button", name="Delete").click()
    second.get_by_text("Nobody yet").wait_for()
    second.locator("#import").set_input_files(kept)
    assert "4 new recordings" in result(second, "Imported")
    # Prints of another model are kept, and left alone.
    other = json.loads(kept.read_text()) | {"model": "0" * 16}
    (tmp_path / "other.json").write_text(json.dumps(other))
    second.locator("#import").set_input_files(tmp_path / "other.json")
    assert "another model" in result(second, "Not done")


def contrast_of_texts():
    """Return JavaScript that lists texts with less contrast than 4.5, by WCAG."""
    return """() => {
      const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (node) => {
        const color = getComputedStyle(node).backgroundColor;
        return color === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : color;
      };
      return [...document.querySelectorAll("h1, h2, p, label, legend, span, small, button, td, th, li")]
        .filter((node) => node.checkVisibility() && node.innerText.trim() && !node.closest(":disabled"))
        .map((node) => [node.innerText, ...[light(getComputedStyle(node).color), light(ground(node))].sort()])
        .filter(([, dark, bright]) => (bright + 0.05) / (dark + 0.05) < 4.5);
    }"""


def test_keyboard_screen_reader_telephone_and_dark_mode(context, site, speakers):
    page = open_page(context, site.address)
    enrol(page, "A name that is " + "very " * 20 + "long", speakers[0][:1])
    choose(page, "Identify")
    page.locator("#files").set_input_files(speakers[1][0])
    result(page, "Unknown speaker")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(contrast_of_texts()) == []
    for width in (320, 390):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    # Whatever can be operated has a name for those who do not see it.
    session = context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    operable = {"button", "textbox", "radio", "combobox", "meter", "progressbar", "dialog"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in operable
    ]
    assert len(named) >= 9 and all(name for _, name in named), named

    # By keyboard alone: to the tasks, to the name, to Record, which listens and stops.
    page.evaluate("document.activeElement.blur()")
    page.get_by_role("radio", name="Identify").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("radio", name="Enrol").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.type("Bela")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_speech(page, 1)
    page.keyboard.press("Enter")
    result(page, "Bela is enrolled")
    assert page.evaluate("document.activeElement.id") == "record"
    assert page.locator("#result").get_attribute("aria-live") == "polite"


def test_the_picture_of_the_attention_is_that_of_the_command(context, site, speakers, model):
    page = open_page(context, site.address)
    enrol(page, "Ada", speakers[0][:2])
    summary = page.get_by_text("What the model attends to")
    summary.focus()
    page.keyboard.press("Enter")
    canvas = page.get_by_role("img", name="the attention in it")
    canvas.wait_for()
    clip = attend_to_clip(model, speakers[0][1])  # the last recording
    expected = clip.maps[0][0].mean(0).numpy()
    assert f"Block {clip.blocks[0]}, the mean of its 4 heads" in page.locator("#attention").inner_text()
    # In the middle of each weight's place: below the spectrogram, which is 110 high, between margins of 56 and 12.
    found = canvas.evaluate(
        """(canvas, [rows, columns]) => {
          const scale = devicePixelRatio, width = canvas.width / scale - 68, height = 300;
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return Array.from({length: rows * columns}, (_, index) => {
            const [row, column] = [Math.floor(index / columns), index % columns];
            const x = Math.floor(scale * (56 + width * (column + 0.5) / columns));
            const y = Math.floor(scale * (132 + height * (row + 0.5) / rows));
            const place = 4 * (y * pixels.width + x);
            return [...pixels.data.slice(place, place + 3)];
          });
        }""",
        list(expected.shape),
    )
    top = np.percentile(expected, 99.5)
    colours = matplotlib.colormaps["magma"]((expected / top).ravel())[:, :3] * 255
    assert np.abs(np.array(found) - colours).mean() < 3 < colours.std()
    # Another recording has another one.
    before = canvas.evaluate("(canvas) => canvas.toDataURL()")
    page.locator("#files").set_input_files(speakers[0][2])
    page.get_by_text("3 recordings").first.wait_for()
    canvas.wait_for()
    assert canvas.evaluate("(canvas) => canvas.toDataURL()") != before
    assert not page.errors
