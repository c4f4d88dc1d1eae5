"""Voiceprints in files: what is written is read back, and what is damaged is refused."""

import json
import math

import numpy as np
import pytest

from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
from speechbrain_bccmt.voiceprints.store import Voiceprints
from speechbrain_bccmt.voiceprints.transfer import read_file, write_file
from tests.voiceprints.stores import ONE, content, voices


@pytest.mark.parametrize("name", ["voices.json", "voices.json.gz"])
def test_a_store_moves_to_another_and_back(prints, tmp_path, name):
    prints.enroll('Ada "x" é', voices(3, size=192) * 1e-3, [1.5, 2.0, 0.1], ["a.wav", "b é.wav", "c"], label="headset")
    prints.add([EnrolledUtterance("Bela", voices(1, size=192, seed=1)[0], 4.0, bandwidth=3750.0)])
    assert prints.reference("Bela").bandwidths.tolist() == [3750]
    assert write_file(tmp_path / name, prints.model(), prints.utterances()) == 2
    assert (tmp_path / name).stat().st_mode & 0o77 == 0
    header, utterances = read_file(tmp_path / name)
    assert header == {"model": ONE, "source": "models/one"}
    other = Voiceprints(tmp_path / "other.sqlite", header["model"], header["source"])
    assert other.add(list(utterances)) == 4
    assert content(other) == content(prints)
    assert other.add(list(read_file(tmp_path / name)[1])) == 0


def test_the_file_is_one_json_object_as_the_page_writes_it(tmp_path):
    path = tmp_path / "voices.json"
    write_file(path, (ONE, "tiny"), [EnrolledUtterance("Ada", voices(1)[0], 1.5, "a.wav", "2026-01-01", "phone")])
    read = json.loads(path.read_text())
    assert read["format"] == "speechbrain_bccmt voiceprints" and read["version"] == 1 and read["model"] == ONE
    (speaker,) = read["speakers"]
    (utterance,) = speaker["utterances"]
    assert np.array_equal(np.float32(utterance["embedding"]), voices(1)[0])
    assert [utterance[key] for key in ("seconds", "audible_seconds", "speech_seconds")] == [1.5] * 3
    # The page puts everything on one line, and knows no files.
    for key in ("file", "enrolled", "label"):
        del utterance[key]
    path.write_text(json.dumps(read, separators=(",", ":")))
    (found,) = read_file(path)[1]
    assert (found.name, found.seconds, found.file) == ("Ada", 1.5, "") and math.isnan(found.bandwidth)


def spoil(text):
    return {
        "other": ('{"speakers": []}', "is no file of voiceprints"),
        "list": ("[1]", "is no file of voiceprints"),
        "text": ("Ada", "is no file of voiceprints"),
        "empty": ("", "is no file of voiceprints"),
        "newer": (text.replace('"version": 1', '"version": 7'), "is of version 7"),
        "cut": (text[: len(text) // 2], "is damaged"),
        "cut after a line": (text[: text.rindex("\n{")], "is damaged: it ends too early"),
        "nan": (text.replace("[", "[NaN, ", 4).replace("[NaN, ", "[", 1), "is damaged"),
        "name": (text.replace('"Bela"', '"un\\u200bseen"'), "is damaged: .*no name"),
        "no seconds": (text.replace("speech_seconds", "seconds"), "is damaged: KeyError 'speech_seconds'"),
        "no list": (text.replace('"utterances"', '"utterance"'), "is damaged"),
    }


@pytest.mark.parametrize("kind", spoil("\n{"))
def test_what_is_damaged_is_refused(tmp_path, kind):
    path = tmp_path / "voices.json"
    both = [EnrolledUtterance(name, row, 1.0) for name, row in zip(["Ada", "Bela"], voices(2), strict=True)]
    write_file(path, (ONE, ""), both)
    text, message = spoil(path.read_text())[kind]
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_file(path)[1])
    assert str(path) in str(caught.value)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "voices.json.gz"
    write_file(path, (ONE, ""), [EnrolledUtterance("Ada", row, 1.0) for row in voices(50)])
    packed = path.read_bytes()
    for content_ in (packed[: len(packed) // 2], b"no archive", b""):
        path.write_bytes(content_)
        with pytest.raises(ValueError, match="voices.json.gz: is"):
            list(read_file(path)[1])
