"""Trial lists: reading, writing, drawing."""

import gzip
import time
from collections import Counter

import numpy as np
import pytest

from speechbrain_bccmt.data.trials import make_trials, read_trials, speaker_of, utterance_id, write_trials


def write(folder, text):
    path = folder / "trials.txt"
    path.write_text(text, encoding="utf-8")
    return path


def as_set(trials):
    return {
        (bool(t), trials.ids[e], trials.ids[s])
        for t, e, s in zip(trials.target, trials.enrol, trials.test, strict=True)
    }


def test_reads_either_column_separator_and_extension(tmp_path):
    text = "\ufeff1 a/x/1.wav a\\y\\2.flac\n\n0\ta/x/1.opus   b/z/v1.5\n0 ./b/z/v1.5 a/x/1\r\n"
    trials = read_trials(write(tmp_path, text))
    assert trials.ids == ["a/x/1", "a/y/2", "b/z/v1.5"]  # ".5" is no audio extension
    assert trials.enrol.tolist() == [0, 0, 2]
    assert trials.test.tolist() == [1, 2, 0]
    assert trials.target.tolist() == [True, False, False]
    assert trials.speakers == {"a", "b"}
    assert len(trials) == 3


@pytest.mark.parametrize(
    "line",
    ["1 a/x/1.wav", "1 a/x/1.wav b/x/1.wav more", "2 a/x/1.wav b/x/1.wav", "target a/x/1.wav b/x/1.wav"],
)
def test_malformed_line_is_named_with_its_number(tmp_path, line):
    path = write(tmp_path, f"1 a/x/1.wav a/x/2.wav\n\n{line}\n")
    with pytest.raises(ValueError, match=r"trials\.txt:3: expected") as error:
        read_trials(path)
    assert "1 malformed" in str(error.value)


def test_many_malformed_lines_are_counted_not_all_shown(tmp_path):
    with pytest.raises(ValueError, match="100 malformed lines") as error:
        read_trials(write(tmp_path, "nonsense\n" * 100))
    assert "and 95 more" in str(error.value)
    assert str(error.value).count("\n") == 6


def test_contradictory_pair_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"trials\.txt:2: the pair of line 1 again, with the other label"):
        read_trials(write(tmp_path, "1 a/x/1 a/x/2\n0 a/x/1 a/x/2\n"))


def test_repeated_trial_counts_once_with_a_warning(tmp_path, caplog):
    trials = read_trials(write(tmp_path, "1 a/x/1 a/x/2\n0 a/x/1 b/x/2\n1 a/x/1.wav a/x/2\n"))
    assert len(trials) == 2
    assert "trials.txt:3: repeats line 1" in caplog.text


def test_unknown_utterance_is_named_with_its_line(tmp_path):
    path = write(tmp_path, "1 a/x/1 a/x/2\n0 a/x/1 b/x/9.wav\n")
    assert len(read_trials(path, known_ids=["a/x/1", "a/x/2", "b/x/9"])) == 2
    with pytest.raises(ValueError, match=r"trials\.txt:2: no utterance b/x/9"):
        read_trials(path, known_ids=["a/x/1", "a/x/2"])


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_list_is_an_error(tmp_path, text):
    with pytest.raises(ValueError, match="holds no trials"):
        read_trials(write(tmp_path, text))


def test_missing_and_binary_files_are_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trial list at .*nowhere"):
        read_trials(tmp_path / "nowhere.txt")
    (tmp_path / "audio.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a text file"):
        read_trials(tmp_path / "audio.txt")


def test_round_trip_plain_and_gzipped(tmp_path):
    ids = [f"{speaker}/s{session}/{n}" for speaker in "abcd" for session in range(2) for n in range(5)]
    trials = make_trials(ids, [speaker_of(i) for i in ids], 50, 70, seed=3)
    write_trials(tmp_path / "list.txt", trials)
    assert as_set(read_trials(tmp_path / "list.txt")) == as_set(trials)
    with gzip.open(tmp_path / "list.txt.gz", "wb") as file:
        file.write((tmp_path / "list.txt").read_bytes())
    assert read_trials(tmp_path / "list.txt.gz").ids == read_trials(tmp_path / "list.txt").ids
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "list.txt",
        "list.txt.gz",
    ]  # nothing temporary


def test_size_of_the_hardest_voxceleb_list_takes_seconds(tmp_path):
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 138_137, size=(552_536, 2))
    lines = (
        f"{a % 2} id{a % 1190:05d}/abcdefghijk/{a}.wav id{b % 1190:05d}/abcdefghijk/{b}.wav\n"
        for a, b in pairs
    )
    path = write(tmp_path, "".join(lines))
    start = time.process_time()
    trials = read_trials(path)
    assert time.process_time() - start < 10  # about 1.5 s on one idle core
    distinct = {(a, b): None for a, b in pairs.tolist()}
    assert len(trials) == len(distinct)
    named = np.array([int(utterance.rpartition("/")[2]) for utterance in trials.ids])
    assert np.array_equal(np.stack([named[trials.enrol], named[trials.test]], 1), np.array(list(distinct)))


def test_drawn_trials_are_true_distinct_and_evenly_shared():
    rng = np.random.default_rng(0)
    ids = [
        f"p{s}/s{session}/{n}" for s in range(20) for session in range(3) for n in range(rng.integers(3, 30))
    ]
    trials = make_trials(ids, [speaker_of(i) for i in ids], 400, 400, seed=1)
    assert len(trials) == 800
    assert trials.target.sum() == 400
    speakers = [speaker_of(i) for i in trials.ids]
    seen = set()
    shares = Counter()
    for enrol, test, target in zip(trials.enrol, trials.test, trials.target, strict=True):
        assert (speakers[enrol] == speakers[test]) == target
        assert enrol != test
        seen.add(frozenset((int(enrol), int(test))))
        if target:
            shares[speakers[enrol]] += 1
            sessions = {trials.ids[i].rpartition("/")[0] for i in (enrol, test)}
            assert len(sessions) == 2  # every speaker has several, so no trial within one recording
    assert len(seen) == 800
    assert set(shares.values()) == {20}


@pytest.mark.parametrize("nontargets", [30, 100_000])
def test_few_utterances_give_every_pair_there_is(nontargets):
    ids = ["a/s/1", "a/s/2", "a/s/3", "b/s/1", "b/s/2", "c/s/1"]
    trials = make_trials(ids, [speaker_of(i) for i in ids], 1000, nontargets, seed=0)
    assert trials.target.sum() == 3 + 1
    assert (~trials.target).sum() == 6 + 3 + 2


def test_drawing_depends_on_the_seed_only():
    ids = [f"p{s}/s/{n}" for s in range(9) for n in range(9)]
    speakers = [speaker_of(i) for i in ids]
    first = make_trials(ids, speakers, 60, 60, seed=5)
    again = make_trials(ids[::-1], speakers[::-1], 60, 60, seed=5)
    other = make_trials(ids, speakers, 60, 60, seed=6)
    assert as_set(first) == as_set(again)
    assert first.ids == again.ids and np.array_equal(first.enrol, again.enrol)
    assert as_set(first) != as_set(other)


def test_impossible_draws_say_why():
    with pytest.raises(ValueError, match="no speaker has two utterances"):
        make_trials(["a/s/1", "b/s/1"], ["a", "b"], 1, 1, seed=0)
    with pytest.raises(ValueError, match="the only speaker is a"):
        make_trials(["a/s/1", "a/s/2"], ["a", "a"], 1, 1, seed=0)


def test_ids_keep_their_dots():
    assert utterance_id("spk.1/v1.0/take.2.WAV") == "spk.1/v1.0/take.2"
    assert utterance_id("spk.1/v1.0/take") == "spk.1/v1.0/take"
