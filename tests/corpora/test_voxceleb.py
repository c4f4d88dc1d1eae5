"""Preparation of corpora in VoxCeleb's layout, on small folders written here and on real speech."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt import files as atomic
from speechbrain_bccmt.audio.headers import read_header, read_headers
from speechbrain_bccmt.corpora import records
from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from speechbrain_bccmt.trials.read import read_trials, speaker_of

OUTPUTS = ["dev.csv", "dev_trials.txt", "preparation.json", "test.csv", "train.csv", "unreadable.txt"]


def write_audio(path, samples=800, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(samples)
    soundfile.write(path, rng.uniform(-0.5, 0.5, samples), 16000, **options)


def make_corpus(folder, speakers=range(10), root="wav", utterances=4, extension="wav"):
    """Write `utterances` files in each of two sessions per speaker, of 800 samples and more."""
    for speaker in speakers:
        for session in ("abc", "x.y"):
            for n in range(utterances):
                path = folder / root / f"id{speaker:02d}" / session / f"{n:05d}.{extension}"
                write_audio(path, 800 + 10 * speaker + n)
    return folder


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def speakers_in(path):
    return {row["spk_id"] for row in rows(path)}


def prepare(folders, save, *args, **options):
    return prepare_voxceleb(folders, save, *args, **({"dev_speakers": 2, "progress": False} | options))


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def trial_list(tmp_path):
    """Names speaker 00 in the first column only and speaker 01 in the second only."""
    path = tmp_path / "veri_test.txt"
    path.write_text("0 id00/abc/00000.wav id01/abc/00001.wav\n0 id00/x.y/00003.wav id01/abc/00001.wav\n")
    return path


def test_rows_describe_the_files(corpus, tmp_path):
    result = prepare(corpus, tmp_path / "save")
    assert sorted(os.listdir(tmp_path / "save")) == OUTPUTS
    train = rows(result.train_csv)
    assert list(train[0]) == ["ID", "duration", "wav", "start", "stop", "spk_id", "sample_rate"]
    for row in train:
        samples, rate = soundfile.read(row["wav"])
        assert Path(row["wav"]) == corpus / "wav" / f"{row['ID']}.wav"
        assert os.path.isabs(row["wav"])
        assert (row["start"], row["stop"]) == ("0", str(len(samples)))
        assert float(row["duration"]) == pytest.approx(len(samples) / rate, abs=1e-4)
        assert row["spk_id"] == row["ID"].split("/")[0]
        assert row["sample_rate"] == "16000"
    assert len({row["ID"] for row in train}) == len(train) == result.n_utterances == 64
    assert result.n_speakers == 8
    assert result.n_hours == pytest.approx(sum(float(row["duration"]) for row in train) / 3600, abs=1e-4)


def test_every_speaker_of_the_trial_list_is_excluded(corpus, trial_list, tmp_path):
    result = prepare(corpus, tmp_path / "save", trial_list)
    others = {f"id{i:02d}" for i in range(2, 10)}
    assert speakers_in(result.train_csv) | speakers_in(result.dev_csv) == others
    assert [row["ID"] for row in rows(result.test_csv)] == [
        "id00/abc/00000",
        "id01/abc/00001",
        "id00/x.y/00003",
    ]
    assert result.n_test_speakers == 2 and result.n_test_utterances == 3


def test_several_lists_are_joined(corpus, trial_list, tmp_path):
    (tmp_path / "more.txt").write_text("0 id02\\abc\\00000.m4a id00\\abc\\00000.m4a\n")  # as Windows writes
    result = prepare(corpus, tmp_path / "save", [trial_list, str(tmp_path / "more.txt")])
    assert result.n_test_speakers == 3 and result.n_test_utterances == 4
    assert "id02" not in speakers_in(result.train_csv) | speakers_in(result.dev_csv)


def test_dev_set_holds_out_whole_speakers(corpus, tmp_path):
    result = prepare(corpus, tmp_path / "save", dev_speakers=3, dev_trials=60)
    dev, train = speakers_in(result.dev_csv), speakers_in(result.train_csv)
    assert len(dev) == result.n_dev_speakers == 3
    assert not dev & train
    assert result.n_dev_utterances == len(rows(result.dev_csv)) == 24
    trials = read_trials(result.dev_trials, known_ids={row["ID"] for row in rows(result.dev_csv)})
    assert len(trials) == result.n_dev_trials == 60 and trials.target.sum() == 30
    for enrol, test, target in zip(trials.enrol, trials.test, trials.target, strict=True):
        assert (speaker_of(trials.ids[enrol]) == speaker_of(trials.ids[test])) == target


def test_held_out_speakers_follow_the_seed_and_survive_new_data(corpus, tmp_path):
    def dev(**options):
        result = prepare(corpus, tmp_path / "save", dev_speakers=3, **options)
        return speakers_in(result.dev_csv), Path(result.dev_trials).read_text()

    first = dev(seed=1)
    assert dev(seed=2) != first
    assert dev(seed=1) == first
    assert len({frozenset(dev(seed=seed)[0]) for seed in range(6)}) > 2
    make_corpus(corpus, [20])
    assert len(first[0] & dev(seed=1)[0]) >= 2


def test_dev_set_may_be_left_out(corpus, tmp_path):
    prepare(corpus, tmp_path / "save")
    result = prepare(corpus, tmp_path / "save", dev_speakers=0)
    assert result.n_speakers == 10 and result.dev_trials is None and rows(result.dev_csv) == []
    assert not (tmp_path / "save" / "dev_trials.txt").exists()


@pytest.mark.parametrize("roots", [["dev/wav", "test/wav"], ["dev/aac"], ["wav"]])
def test_layouts_of_the_archives(tmp_path, roots):
    for i, root in enumerate(roots):
        make_corpus(tmp_path / "vox", range(5 * i, 5 * i + 5), root)
    result = prepare(tmp_path / "vox", tmp_path / "save")
    assert result.n_speakers == 5 * len(roots) - 2
    assert prepare(tmp_path / "vox" / roots[0], tmp_path / "save2").n_speakers == 3  # the folder itself


def test_several_folders_and_formats(corpus, tmp_path):
    make_corpus(tmp_path / "two", range(20, 23), extension="flac")
    make_corpus(tmp_path / "three", range(30, 32), extension="OGG")
    result = prepare([str(corpus), tmp_path / "two", tmp_path / "three"], tmp_path / "save")
    assert result.n_speakers + result.n_dev_speakers == 15
    for row in rows(result.train_csv):
        assert len(soundfile.read(row["wav"])[0]) == int(row["stop"])


def test_dev_trials_stay_within_a_corpus_and_take_as_many_speakers_of_each(corpus, tmp_path):
    folders = [corpus] + [
        make_corpus(tmp_path / name, speakers, utterances=utterances)
        for name, speakers, utterances in (("two", range(20, 23), 4), ("three", [30], 1), ("four", range(40, 44), 4))
    ]
    result = prepare([str(folder) for folder in folders], tmp_path / "save", dev_speakers=7, dev_trials=60)
    home = {row["spk_id"]: row["wav"].removeprefix(str(tmp_path)).split("/")[1] for row in rows(result.dev_csv)}
    assert sorted(Counter(home.values()).values()) == [1, 2, 2, 2] and home["id30"] == "three"
    trials = read_trials(result.dev_trials)
    sides = [[home[speaker_of(trials.ids[row])] for row in side] for side in (trials.enrol, trials.test)]
    assert sides[0] == sides[1] and not trials.target.all()


def test_corpora_of_one_dev_speaker_each_meet(tmp_path):
    folders = [make_corpus(tmp_path / name, [start, start + 1]) for name, start in (("one", 0), ("two", 5))]
    result = prepare(folders, tmp_path / "save", dev_speakers=2)
    trials = read_trials(result.dev_trials)
    assert result.n_dev_speakers == 2 and not trials.target.all()


def test_same_utterance_in_two_folders_is_an_error(corpus, tmp_path):
    make_corpus(tmp_path / "copy", [3])
    with pytest.raises(ValueError, match="8 utterances are in two data folders, as .*id03.* and .*id03"):
        prepare([corpus, tmp_path / "copy"], tmp_path / "save")
    assert (
        prepare([corpus, corpus], tmp_path / "save").n_utterances == 64
    )  # the same folder twice is harmless


def test_one_format_is_taken_where_a_folder_holds_two(corpus, tmp_path):
    make_corpus(corpus, range(10), extension="flac")
    for order, expected in (((".wav", ".flac"), ".wav"), ((".flac", ".wav"), ".flac")):
        result = prepare(corpus, tmp_path / "save", extensions=order)
        assert result.n_utterances == 64
        assert {Path(row["wav"]).suffix for row in rows(result.train_csv)} == {expected}


def test_unreadable_files_are_named_and_skipped(corpus, tmp_path):
    folder = corpus / "wav" / "id05" / "abc"
    whole = (folder / "00000.wav").read_bytes()
    write_audio(folder / "flac.flac", 40000)
    write_audio(folder / "vorbis.ogg", 40000)
    broken = {
        "zero.wav": b"",
        "text.wav": b"this is a letter, not a recording\n" * 9,
        "cut.wav": whole[: len(whole) // 2],
        "head.wav": whole[:44],
        "flac.flac": (folder / "flac.flac").read_bytes()[:20000],
        "vorbis.ogg": (folder / "vorbis.ogg").read_bytes()[:-300],
        "noise.flac": np.random.default_rng(0).bytes(4000),
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="7 of 87 files cannot be read, more than max_unreadable=0.01"):
        prepare(corpus, tmp_path / "save")
    named = [line.split("\t") for line in (tmp_path / "save" / "unreadable.txt").read_text().splitlines()]
    assert {path for path, _ in named} == {str(folder / name) for name in broken}
    assert all(reason for _, reason in named)
    assert os.listdir(tmp_path / "save") == ["unreadable.txt"]
    result = prepare(corpus, tmp_path / "save", max_unreadable=0.1, dev_speakers=0)
    assert result.n_unreadable == 7 and result.n_utterances == 80
    assert {path for path, _ in named} == {
        line.split("\t")[0] for line in Path(result.unreadable).read_text().splitlines()
    }


def test_unreadable_test_utterance_is_an_error(corpus, trial_list, tmp_path):
    (corpus / "wav" / "id01" / "abc" / "00001.wav").write_bytes(b"")
    with pytest.raises(
        ValueError, match="1 utterances of the trial lists cannot be read: .*00001.wav .empty file"
    ):
        prepare(corpus, tmp_path / "save", trial_list, max_unreadable=0.5)


def test_missing_test_utterances_are_counted_and_named(corpus, trial_list, tmp_path):
    with open(trial_list, "a") as file:
        file.writelines(f"0 id00/abc/00000.wav id77/abc/{n:05d}.wav\n" for n in range(30))
    with pytest.raises(
        ValueError, match=r"30 utterances(.|\n)*veri_test\.txt:3: no utterance id77/abc/00000"
    ):
        prepare(corpus, tmp_path / "save", trial_list)


@pytest.mark.parametrize("dev_speakers", [8, 40])
def test_no_training_speaker_left(corpus, trial_list, tmp_path, dev_speakers):
    with pytest.raises(
        ValueError, match=f"no training speaker remains: dev_speakers={dev_speakers} .* 8 speakers"
    ):
        prepare(corpus, tmp_path / "save", trial_list, dev_speakers=dev_speakers)


def test_all_speakers_tested_leaves_none(corpus, tmp_path):
    lines = [f"0 id{a:02d}/abc/00000.wav id{a + 1:02d}/abc/00000.wav\n" for a in range(0, 10, 2)]
    (tmp_path / "all.txt").write_text("".join(lines))
    with pytest.raises(ValueError, match="no training speaker remains: the trial lists name 10 speakers"):
        prepare(corpus, tmp_path / "save", tmp_path / "all.txt", dev_speakers=0)


def test_test_data_alone(corpus, trial_list, tmp_path, monkeypatch):
    """A folder of test speakers serves verification, though none is left to train on."""
    for speaker in range(2, 10):
        shutil.rmtree(corpus / "wav" / f"id{speaker:02d}")
    with pytest.raises(ValueError, match="no training speaker remains"):
        prepare(corpus, tmp_path / "save", trial_list)
    (corpus / "wav" / "id01" / "x.y" / "00000.wav").write_bytes(b"damaged, but in no trial")
    asked = []
    monkeypatch.setattr(
        records, "read_headers", lambda paths, *args: asked.extend(paths) or read_headers(paths, *args)
    )
    result = prepare(corpus, tmp_path / "save", trial_list, training=False)
    tested = ["id00/abc/00000", "id01/abc/00001", "id00/x.y/00003"]
    assert sorted(row["ID"] for row in rows(result.test_csv)) == sorted(tested)
    assert sorted(asked) == sorted(str(corpus / "wav" / f"{utterance}.wav") for utterance in tested)
    assert sorted(os.listdir(tmp_path / "save")) == ["preparation.json", "test.csv", "unreadable.txt"]
    assert (result.train_csv, result.dev_csv, result.dev_trials) == (None, None, None)
    assert (result.n_utterances, result.n_test_utterances, result.n_unreadable) == (0, 3, 0)
    assert not prepare(corpus, tmp_path / "save", trial_list, training=False).rebuilt


def test_test_data_and_training_data_follow_each_other(corpus, trial_list, tmp_path):
    """What is asked for is what lies in the folder, whatever lay there before."""
    with_training = prepare(corpus, tmp_path / "save", trial_list)
    prepare(corpus, tmp_path / "save", trial_list, training=False)
    assert sorted(os.listdir(tmp_path / "save")) == ["preparation.json", "test.csv", "unreadable.txt"]
    assert prepare(corpus, tmp_path / "save", trial_list) == with_training
    assert sorted(os.listdir(tmp_path / "save")) == OUTPUTS


def test_test_data_alone_needs_a_list(corpus, tmp_path):
    with pytest.raises(ValueError, match="training=False .* give verification_files"):
        prepare(corpus, tmp_path / "save", training=False)


def test_wrong_folders_and_lists(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        prepare(tmp_path / "nowhere", tmp_path / "save")
    (tmp_path / "empty" / "wav").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no audio"):
        prepare(tmp_path / "empty", tmp_path / "save")
    with pytest.raises(FileNotFoundError, match="wav/<speaker>/<session>"):
        prepare(corpus / "wav" / "id03", tmp_path / "save")
    with pytest.raises(FileNotFoundError, match="no trial list at .*no.txt"):
        prepare(corpus, tmp_path / "save", tmp_path / "no.txt")
    with pytest.raises(ValueError, match="dev_speakers=1"):
        prepare(corpus, tmp_path / "save", dev_speakers=1)


def test_short_utterances_are_left_out(corpus, tmp_path):
    result = prepare(corpus, tmp_path / "save", min_duration=0.055, dev_speakers=0)  # 880 samples
    assert 0 < result.n_short < 80 and result.n_utterances == 80 - result.n_short
    assert min(int(row["stop"]) for row in rows(result.train_csv)) == 880


def test_utterances_without_a_speaker_are_trained_on_and_nothing_else(corpus, trial_list, tmp_path):
    plain = prepare(corpus, tmp_path / "plain", trial_list)
    for name in ("alexa/0", "alexa/1", "jarvis/0"):
        path = tmp_path / "nameless" / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(1600, 0.1), 16000)
    options = {"unlabelled_folders": tmp_path / "nameless"}
    result = prepare(corpus, tmp_path / "save", trial_list, **options)
    nameless = [row["ID"] for row in rows(result.train_csv) if row["spk_id"] == ""]
    assert nameless == ["alexa/0", "alexa/1", "jarvis/0"]
    assert result.n_utterances == plain.n_utterances + 3 and result.n_speakers == plain.n_speakers
    assert rows(result.dev_csv) == rows(plain.dev_csv) and rows(result.test_csv) == rows(plain.test_csv)
    with pytest.raises(ValueError, match="is in a data folder and in an unlabelled one"):
        prepare(corpus, tmp_path / "clash", trial_list, unlabelled_folders=corpus)


def test_unchanged_inputs_are_not_prepared_again(corpus, trial_list, tmp_path, monkeypatch):
    first = prepare(corpus, tmp_path / "save", trial_list)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "save").iterdir()}
    monkeypatch.setattr(records, "read_headers", lambda *args: pytest.fail("headers are read again"))
    again = prepare(corpus, tmp_path / "save", trial_list)
    assert first.rebuilt and not again.rebuilt
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "save").iterdir()} == times
    assert again == type(again)(**(vars(first) | {"rebuilt": False}))


@pytest.mark.parametrize(
    "change", ["added", "removed", "longer", "list", "seed", "output removed", "output edited"]
)
def test_changed_inputs_are_prepared_again(corpus, trial_list, tmp_path, change):
    prepare(corpus, tmp_path / "save", trial_list, seed=1)
    folder = corpus / "wav" / "id05" / "abc"
    options = {"seed": 1}
    if change == "added":
        write_audio(folder / "new.wav")
    elif change == "removed":
        (folder / "00000.wav").unlink()
    elif change == "longer":
        write_audio(folder / "00000.wav", 999)
    elif change == "list":
        trial_list.write_text("0 id02/abc/00000.wav id03/abc/00001.wav\n")
    elif change == "seed":
        options["seed"] = 2
    elif change == "output removed":
        (tmp_path / "save" / "dev_trials.txt").unlink()
    else:
        with open(tmp_path / "save" / "train.csv", "a") as file:
            file.write("junk\n")
    result = prepare(corpus, tmp_path / "save", trial_list, **options)
    assert result.rebuilt
    fresh = prepare(corpus, tmp_path / "fresh", trial_list, **options)
    for name in OUTPUTS:
        if name != "preparation.json":
            assert (tmp_path / "save" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert result.n_utterances == fresh.n_utterances
    assert not prepare(corpus, tmp_path / "save", trial_list, **options).rebuilt


def test_same_content_replaced_in_place_is_noticed(corpus, tmp_path):
    """Same size, other time: the fingerprint must not rest on sizes alone."""
    prepare(corpus, tmp_path / "save")
    path = corpus / "wav" / "id05" / "abc" / "00000.wav"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert prepare(corpus, tmp_path / "save").rebuilt


@pytest.mark.parametrize("survived", range(6))
def test_interruption_between_renames_is_never_taken_for_complete(corpus, tmp_path, monkeypatch, survived):
    prepare(corpus, tmp_path / "save")
    make_corpus(corpus, [50])
    real, calls = os.replace, []

    def replace(source, target):
        if len(calls) == survived:
            raise KeyboardInterrupt
        calls.append(target)
        real(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tmp_path / "save")
    monkeypatch.undo()
    assert not (tmp_path / "save" / "preparation.json").exists()
    for name in ("train.csv", "dev.csv", "test.csv"):  # old or new, but whole
        assert (tmp_path / "save" / name).read_bytes().endswith(b"\n")
        assert all(None not in row.values() for row in rows(tmp_path / "save" / name))
    assert prepare(corpus, tmp_path / "save").rebuilt
    assert sorted(os.listdir(tmp_path / "save")) == OUTPUTS


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_killed_process_leaves_only_whole_files(corpus, tmp_path, delay):
    """A child that prepares again and again, with alternating inputs, is killed somewhere in between."""
    script = (
        "import sys\n"
        "from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb\n"
        "print('ready', flush=True)\n"
        "for seed in range(10**6):\n"
        "    prepare_voxceleb(sys.argv[1], sys.argv[2], dev_speakers=2, seed=seed, progress=False)\n"
    )
    save = tmp_path / "save"
    command = [sys.executable, "-c", script, str(corpus), str(save)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert child.stdout.readline() == b"ready\n"
    while not (save / "preparation.json").exists() and child.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    for path in save.glob("[!.]*.csv"):
        assert path.read_bytes().endswith(b",16000\n") or path.name == "test.csv"
    if (save / "preparation.json").exists():  # then the set is complete
        sizes = json.loads((save / "preparation.json").read_text())["sizes"]
        assert {path: os.path.getsize(path) for path in sizes} == sizes
    assert prepare(corpus, save, seed=10**7).rebuilt


def test_full_disk_keeps_the_old_files(corpus, tmp_path, monkeypatch):
    prepare(corpus, tmp_path / "save")
    before = {path.name: path.read_bytes() for path in (tmp_path / "save").iterdir()}
    make_corpus(corpus, [50])
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(OSError, match="no space left to write .*save.*free some") as error:
        prepare(corpus, tmp_path / "save")
    assert error.value.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in (tmp_path / "save").iterdir()} == before


def test_cut_off_conversions_and_hidden_files_are_not_utterances(corpus, tmp_path):
    shutil.copy(
        corpus / "wav" / "id05" / "abc" / "00000.wav", corpus / "wav" / "id05" / "abc" / "._00000.wav"
    )
    assert prepare(corpus, tmp_path / "save", dev_speakers=0).n_utterances == 80


@pytest.mark.parametrize(
    "options",
    [
        {"subtype": "PCM_24"},
        {"subtype": "FLOAT"},
        {"subtype": "ULAW"},
        {"subtype": "IMA_ADPCM"},
        {"subtype": "PCM_16"},
    ],
)
def test_header_of_every_kind_of_wav(tmp_path, options):
    write_audio(tmp_path / "a.wav", 5000, **options)
    info = soundfile.info(tmp_path / "a.wav")
    assert read_header(str(tmp_path / "a.wav")) == (info.frames, info.samplerate)


def test_header_of_unusual_wav_files(tmp_path):
    path = tmp_path / "a.wav"
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (3001, 2))
    soundfile.write(path, stereo, 8000)
    assert read_header(str(path)) == (3001, 8000)
    data = path.read_bytes()
    listed = data[:36] + b"LIST" + (2001).to_bytes(4, "little") + bytes(2002) + data[36:]  # padded, and long
    path.write_bytes(listed)
    assert read_header(str(path)) == (3001, 8000)
    streamed = data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]  # as written into a pipe
    path.write_bytes(streamed)
    assert read_header(str(path)) == (3001, 8000)


def test_many_headers_keep_their_order_slow_or_quick(tmp_path, monkeypatch):
    for i in range(60):
        write_audio(tmp_path / f"{i}.wav", 100 + i)
    paths = [str(tmp_path / f"{i % 60}.wav") for i in range(1500)] + [str(tmp_path / "none.wav")]
    for quick in (0.0, 1.0):  # all in threads but the first chunk; all in this one
        monkeypatch.setattr("speechbrain_bccmt.audio.headers._QUICK", quick)
        headers, unreadable = read_headers(paths, workers=3, progress=False)
        assert [header.frames for header in headers[:-1]] == [100 + i % 60 for i in range(1500)]
        assert headers[-1] is None and list(unreadable) == [paths[-1]]
    with pytest.raises(ValueError, match="workers=0"):
        read_headers(paths, workers=0)


def test_real_speech(speech_data, tmp_path):
    corpus = speech_data / "speechocean762"
    trial_list = corpus / "meta" / "veri_test.txt"
    result = prepare(corpus, tmp_path, trial_list, dev_speakers=16)
    with open(corpus / "meta" / "utterances.csv", newline="") as file:
        meta = {row["utterance"].removesuffix(".opus"): row for row in csv.DictReader(file)}
    tested = {row["speaker"] for row in meta.values() if row["split"] == "test"}
    train, dev = speakers_in(result.train_csv), speakers_in(result.dev_csv)
    assert len(tested) == result.n_test_speakers == 40
    assert len(train | dev) == 166 and len(dev) == 16
    assert not (train | dev) & tested
    assert {row["ID"] for row in rows(result.test_csv)} == set(read_trials(trial_list).ids)
    assert result.n_unreadable == 0
    for row in rows(result.train_csv):
        assert float(row["duration"]) == pytest.approx(float(meta[row["ID"]]["duration"]), abs=0.02)
