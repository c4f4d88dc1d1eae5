"""The demo corpus on a few speakers: bytes, layout, trials, sound, and what happens on a kill."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import welch

from speechbrain_bccmt.demo_corpus import espeak
from speechbrain_bccmt.demo_corpus import sentences as demo_corpus
from speechbrain_bccmt.demo_corpus.__main__ import main
from speechbrain_bccmt.demo_corpus.channel import Channel
from speechbrain_bccmt.demo_corpus.sentences import DemoCorpusSettings, make_demo_corpus
from speechbrain_bccmt.demo_corpus.speakers import draw_speakers, sentence, voice_file

pytest.importorskip("espeakng_loader", reason=espeak.INSTALL_HINT)

SMALL = DemoCorpusSettings(speakers=16, sessions=2, utterances=2, targets=10)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "demo"
    make_demo_corpus(folder, SMALL, processes=2, progress=False)
    return folder


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_trials(folder):
    lines = (folder / "meta" / "veri_test.txt").read_text().splitlines()
    return [(int(label), enrol, test) for label, enrol, test in map(str.split, lines)]


def test_layout_is_voxceleb(corpus):
    utterances = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav"))
    assert len(utterances) == 16 * 2 * 2
    assert utterances[0] == "wav/id10001/s01/00001.wav" and utterances[-1] == "wav/id10016/s02/00002.wav"
    assert {path.name for path in corpus.iterdir()} == {"wav", "meta"}


def test_trials_are_of_held_out_speakers_across_sessions_and_within_a_sex(corpus):
    rows = [line.split(",") for line in (corpus / "meta" / "speakers.csv").read_text().splitlines()[1:]]
    sex = {row[0]: row[1] for row in rows}
    held_out = {row[0] for row in rows if row[2] == "test"}
    assert held_out == {"id10013", "id10014", "id10015", "id10016"}
    trials = read_trials(corpus)
    assert Counter(label for label, _, _ in trials) == {1: 8, 0: 32}
    assert len(set(trials)) == len(trials)
    for label, enrol, test in trials:
        (speaker, session, _), (other, other_session, _) = enrol.split("/"), test.split("/")
        assert {speaker, other} <= held_out and sex[speaker] == sex[other]
        assert (corpus / "wav" / enrol).is_file() and (corpus / "wav" / test).is_file()
        assert label == (speaker == other)
        assert session != other_session or not label


def test_audio_is_speech_of_sane_length_and_level(corpus):
    for path in corpus.rglob("*.wav"):
        samples, rate = sf.read(path)
        info = sf.info(path)
        assert (rate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.5 < len(samples) / rate < 8
        assert 0.1 < np.abs(samples).max() < 0.95
        frames = samples[: len(samples) // 400 * 400].reshape(-1, 400)
        level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
        assert np.percentile(level, 90) - np.percentile(level, 5) > 6, f"{path} has no pauses"


def test_same_bytes_whatever_the_processes_and_after_a_kill(corpus, tmp_path):
    folder = tmp_path / "again"
    make_demo_corpus(folder, SMALL, processes=3, progress=False)
    complete = content(corpus)
    assert content(folder) == complete
    # As a kill leaves it: no trial list yet, a speaker missing, another half made.
    (folder / "meta" / "veri_test.txt").unlink()
    (folder / "partial").mkdir()
    (folder / "wav" / "id10003").rename(folder / "partial" / "id10003")
    (folder / "partial" / "id10003" / "s01" / "00001.wav").write_bytes(b"half")
    untouched = (folder / "wav" / "id10001").stat().st_mtime_ns
    make_demo_corpus(folder, SMALL, processes=1, progress=False)
    assert content(folder) == complete
    assert (folder / "wav" / "id10001").stat().st_mtime_ns == untouched


def test_complete_corpus_is_taken_as_it_is(corpus, monkeypatch):
    monkeypatch.setattr(demo_corpus, "draw_speakers", lambda *args: pytest.fail("made again"))
    assert make_demo_corpus(corpus, SMALL) == corpus / "meta" / "veri_test.txt"


def test_other_seed_gives_other_people_and_more_speakers_keep_the_first():
    assert draw_speakers(10, 4, seed=1)[:4] == draw_speakers(4, 4, seed=1)
    assert draw_speakers(4, 2, seed=1) != draw_speakers(4, 2, seed=2)


def test_people_differ_and_sentences_vary():
    speakers = draw_speakers(80, 60, seed=1234)
    assert len({speaker.formants for speaker in speakers}) == 80
    assert len({(speaker.dialect, speaker.variant) for speaker in speakers}) > 60
    pitches = {sex: [speaker.pitch for speaker in speakers if speaker.sex == sex] for sex in "fm"}
    assert min(pitches["f"]) > max(pitches["m"])
    rng = np.random.default_rng(0)
    assert len({sentence(rng) for _ in range(200)}) == 200


def test_formants_move_the_spectrum():
    """A longer vocal tract (lower formants) lowers the spectral centroid, at the same pitch and words."""
    speaker = draw_speakers(2, 2, seed=3)[1]
    centroids = []
    for factor in (0.85, 1.15):
        formants = tuple((factor * frequency, height, width) for frequency, height, width in speaker.formants)
        voice = voice_file(
            type(speaker)(**{**speaker.__dict__, "formants": formants}), np.random.default_rng(0)
        )
        frequencies, power = welch(espeak.synthesize("one two three four", voice), espeak.SAMPLE_RATE)
        centroids.append(np.sum(frequencies * power) / np.sum(power))
    assert centroids[1] > 1.08 * centroids[0]


def test_channel_adds_noise_at_its_ratio_and_cuts_its_band():
    channel = Channel(
        filter=np.eye(129)[64], band=(300.0, 3400.0), room=np.ones(1), noise_colour=0.0, snr_db=20.0, peak=0.5
    )
    times = np.arange(32000) / 16000
    tone = np.sin(2 * np.pi * 1000 * times)
    recording = channel.apply(tone, np.random.default_rng(0))
    frequencies, power = welch(recording, 16000, nperseg=4096)
    near_tone = np.abs(frequencies - 1000) < 30
    passed = (frequencies > 500) & (frequencies < 3000) & ~near_tone
    beyond = frequencies > 6000
    # White noise over 8 kHz holds a hundredth of the tone's power; its density is read from the passed band.
    ratio = 10 * np.log10(power[near_tone].sum() / (power[passed].mean() * 8000 / frequencies[1]))
    assert ratio == pytest.approx(20, abs=0.7)
    assert power[beyond].mean() < 1e-3 * power[passed].mean()
    assert np.abs(recording).max() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong", [{"speakers": 15}, {"sessions": 1}, {"utterances": 0}, {"targets": 0}, {"seed": -1}]
)
def test_settings_without_trials_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DemoCorpusSettings(**wrong)


def test_command_refuses_other_settings_and_foreign_folders(corpus, tmp_path, capsys):
    assert main([str(corpus), "--seed", "7"]) == 2
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "thesis.tex").touch()
    assert main([str(tmp_path)]) == 2
    assert "other files" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--speakers", "3"]) == 2
    assert "at least 16" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_missing_library_names_its_installation(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert main([str(tmp_path / "new")]) == 2
    assert 'pip install "speechbrain_bccmt[demo]"' in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_unknown_voice_is_refused():
    with pytest.raises(ValueError, match="refuses this voice|says nothing"):
        espeak.synthesize("one", "")


def test_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", "speechbrain_bccmt.demo_corpus", str(tmp_path / "new")]
    options = ["--speakers", "16", "--sessions", "2", "--utterances", "1"]
    done = subprocess.run(command + options, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "16/16" in done.stderr and "veri_test.txt" in done.stdout
