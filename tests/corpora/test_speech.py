"""Preparation of what is said alone."""

import csv

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.phrase_csv import prepare_phrase_csv
from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb


@pytest.fixture
def corpus(tmp_path, speech_data):
    """Six speakers of real speech, 2 s of digital silence before it and 3 s of noise behind, at two rates."""
    rng = np.random.default_rng(0)
    speakers = sorted((speech_data / "speechocean762" / "wav").iterdir())[:6]
    for number, speaker in enumerate(speakers):
        rate = 16000 if number % 2 else 8000
        for path in sorted(speaker.rglob("*.opus"))[:2]:
            parts = np.zeros(2 * rate), read_mono(path, rate), 0.001 * rng.standard_normal(3 * rate)
            out = tmp_path / "corpus" / "wav" / speaker.name / "s0" / f"{path.stem}.wav"
            out.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(out, np.concatenate(parts), rate)
    return tmp_path / "corpus"


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_utterances_begin_and_end_with_speech(corpus, tmp_path, detector):
    silent = corpus / "wav" / "nobody" / "s0" / "00000.wav"
    silent.parent.mkdir(parents=True)
    soundfile.write(silent, 0.001 * np.random.default_rng(1).standard_normal(32000), 16000)
    options = {"dev_speakers": 2, "dev_trials": 4, "progress": False}
    whole = prepare_voxceleb(corpus, tmp_path / "whole", **options)
    cut = prepare_voxceleb(corpus, tmp_path / "cut", vad=True, **options)
    assert (whole.n_short, cut.n_short) == (0, 1) and whole.n_utterances == cut.n_utterances + 1
    before = {row["ID"]: row for row in rows_of(whole.train_csv) + rows_of(whole.dev_csv)}
    after = rows_of(cut.train_csv) + rows_of(cut.dev_csv)
    assert len(after) == 12 and not any("nobody" in row["ID"] for row in after)
    for row in after:
        rate, start, stop = (int(row[key]) for key in ("sample_rate", "start", "stop"))
        total = int(before[row["ID"]]["stop"])
        assert 1.4 * rate < start < 3 * rate  # 0.4 s of padding, and the pause before the first word
        assert total - 4 * rate < stop < total - 2 * rate  # as behind the last word
        assert float(row["duration"]) == pytest.approx((stop - start) / rate, abs=1e-4)
    assert cut.n_hours < 0.6 * whole.n_hours
    assert prepare_voxceleb(corpus, tmp_path / "cut", vad=True, **options).rebuilt is False
    assert prepare_voxceleb(corpus, tmp_path / "cut", **options).rebuilt is True


def test_tested_utterances_stay_whole(corpus, tmp_path, detector):
    names = sorted(path.relative_to(corpus / "wav") for path in (corpus / "wav").rglob("*.wav"))
    (tmp_path / "trials.txt").write_text(f"1 {names[0]} {names[1]}\n0 {names[0]} {names[2]}\n")
    lists = tmp_path / "trials.txt"
    made = prepare_voxceleb(corpus, tmp_path / "save", lists, dev_speakers=0, vad=True, progress=False)
    assert [row["start"] for row in rows_of(made.test_csv)] == ["0", "0", "0"]
    assert all(int(row["start"]) > 0 for row in rows_of(made.train_csv))


def test_phrases_and_damaged_files(corpus, tmp_path, detector):
    paths = sorted((corpus / "wav").rglob("*.wav"))
    samples = soundfile.read(paths[0])[0]
    samples[-1] = np.nan
    soundfile.write(paths[0], samples, 8000, subtype="FLOAT")
    lines = [f"{path.relative_to(corpus / 'wav')},{path.parts[-3]},hello" for path in paths]
    (tmp_path / "all.csv").write_text("\n".join(["utterance,speaker,phrase", *lines]))
    options = {"csv_file": tmp_path / "all.csv", "dev_speakers": 0, "vad": True, "progress": False}
    with pytest.raises(ValueError, match="1 of 12 files cannot be read"):
        prepare_phrase_csv(corpus, tmp_path / "save", **options)
    made = prepare_phrase_csv(corpus, tmp_path / "save", max_unreadable=0.1, **options)
    assert (made.n_unreadable, made.n_utterances) == (1, 11)
    assert "NaN or infinite" in (tmp_path / "save" / "unreadable.txt").read_text()
