"""The phrase-based demo corpus on a few speakers: bytes, layout, trials, and that it can be prepared."""

import csv
from collections import Counter

import numpy as np
import pytest
import soundfile as sf

from speechbrain_bccmt.corpora.phrase_csv import prepare_phrase_csv
from speechbrain_bccmt.demo_corpus import espeak
from speechbrain_bccmt.demo_corpus.__main__ import main
from speechbrain_bccmt.demo_corpus.phrases import PHRASES, DemoPhraseSettings, make_phrase_corpus
from speechbrain_bccmt.trials.read import read_trials

pytest.importorskip("espeakng_loader", reason=espeak.INSTALL_HINT)

SMALL = DemoPhraseSettings(speakers=16, phrases=3, takes=5, trials=80)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "demo"
    make_phrase_corpus(folder, SMALL, processes=2, progress=False)
    return folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_and_table_agree(corpus):
    utterances = {path.relative_to(corpus / "wav").as_posix() for path in corpus.rglob("*.wav")}
    rows = rows_of(corpus / "meta/utterances.csv")
    assert len(utterances) == 16 * 3 * 5 and utterances == {row["utterance"] for row in rows}
    assert "id10001/open_the_window/01.wav" in utterances
    assert {path.name for path in corpus.iterdir()} == {"wav", "meta"}
    assert Counter(row["sex"] for row in rows) == {"f": 120, "m": 120}


def test_trials_are_of_held_out_speakers_four_types_and_one_sex(corpus):
    rows = {row["utterance"].removesuffix(".wav"): row for row in rows_of(corpus / "meta/utterances.csv")}
    trials = read_trials(corpus / "meta/trials.txt", rows, enrolment=corpus / "meta/model_enrollment.txt")
    assert np.bincount(trials.trial_type).tolist() == [20] * 4
    held_out = {row["id"] for row in rows_of(corpus / "meta/speakers.csv") if row["split"] == "test"}
    for row in range(len(trials)):
        model = trials.models[trials.enrol[row]]
        enrolled = [rows[trials.ids[i]] for i in model.utterances]
        test = rows[trials.ids[trials.test[row]]]
        assert [utterance["take"] for utterance in enrolled] == ["01", "02", "03"]
        assert {test["speaker"], enrolled[0]["speaker"]} <= held_out
        assert test["take"] > "03" and test["sex"] == enrolled[0]["sex"]
        same = test["speaker"] == enrolled[0]["speaker"], test["phrase"] == model.phrase
        assert trials.target[row] == all(same)


def test_audio_is_short_speech(corpus):
    seconds = [sf.info(path).duration for path in corpus.rglob("*.wav")]
    assert 0.4 < min(seconds) and max(seconds) < 3
    # Takes of a phrase differ in mood and channel.
    takes = [sf.read(path)[0] for path in sorted((corpus / "wav/id10001/open_the_window").iterdir())]
    assert len({len(take) for take in takes} | {round(float(np.abs(take).max()), 3) for take in takes}) > 5


def test_same_bytes_whatever_the_processes_and_after_a_kill(corpus, tmp_path):
    folder = tmp_path / "again"
    make_phrase_corpus(folder, SMALL, processes=1, progress=False)
    assert content(folder) == content(corpus)
    (folder / "meta/trials.txt").unlink()
    (folder / "partial").mkdir()
    (folder / "wav/id10003").rename(folder / "partial/id10003")
    make_phrase_corpus(folder, SMALL, processes=2, progress=False)
    assert content(folder) == content(corpus)


def test_it_can_be_prepared(corpus, tmp_path):
    made = prepare_phrase_csv(corpus, tmp_path, dev_speakers=4, dev_trials=40, progress=False)
    assert (made.n_speakers, made.n_phrases, made.n_dev_speakers, made.n_test_speakers) == (8, 3, 4, 4)


def test_phrases_have_names_of_their_own():
    assert len(set(PHRASES)) == len(PHRASES)
    assert not any("/" in phrase or "_" in phrase for phrase in PHRASES)


@pytest.mark.parametrize(
    "wrong", [{"speakers": 15}, {"phrases": 1}, {"phrases": 99}, {"takes": 3}, {"trials": 2}, {"seed": -1}]
)
def test_settings_without_trials_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DemoPhraseSettings(**wrong)


def test_command_makes_it_and_refuses_other_settings(corpus, tmp_path, capsys):
    asked = ["--speakers", "16", "--phrases", "3", "--takes", "5", "--trials", "80"]
    assert main([str(corpus), *asked]) == 0
    assert "trials.txt" in capsys.readouterr().out
    assert main([str(corpus), "--phrases", "4"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([str(corpus)]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--phrases", "3", "--sessions", "2"]) == 2
    assert "--sessions do not go with --phrases" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--takes", "5"]) == 2
    assert "--takes need --phrases" in capsys.readouterr().err and not (tmp_path / "new").exists()
