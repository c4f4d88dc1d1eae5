"""Trial lists: reading, writing, drawing."""

import gzip
import re
import time
from collections import Counter

import numpy as np
import pytest

from speechbrain_bccmt.trials import table as trial_formats
from speechbrain_bccmt.trials.read import (
    make_trials,
    make_trials_from_csv,
    read_trials,
    speaker_of,
    utterance_id,
    write_models,
    write_trials,
)


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
        read_trials(write(tmp_path, "1 a/x/1 a/x/2\n" + "nonsense\n" * 100))
    assert "and 95 more" in str(error.value)
    assert str(error.value).count("\n") == 6


def test_contradictory_pair_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"trials\.txt:2: the pair of line 1 again, with the other label"):
        read_trials(write(tmp_path, "1 a/x/1 a/x/2\n0 a/x/1 a/x/2\n"))


def test_repeated_trial_counts_once_with_a_warning(tmp_path, caplog):
    trials = read_trials(write(tmp_path, "1 a/x/1 a/x/2\n0 a/x/1 b/x/2\n1 a/x/1.wav a/x/2\n"))
    assert len(trials) == 2
    assert "trials.txt:3: repeats line 1" in caplog.text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a/x/1.wav a/x/2 target\na/x/1 b/x/1 nontarget\n", (1, 2)),  # Kaldi, WeSpeaker
        ("a/x/1 a/x/2 1\n\na/x/1 b/x/1 0\n", (1, 3)),
        ("enrol,test,label,gender\na/x/1.wav,a/x/2,1,f\na/x/1,b/x/1,0,f\n", (2, 3)),
        ("gender;label;test;enroll\nf;target;a/x/2;a/x/1\nf;nontarget;b/x/1;a/x/1\n", (2, 3)),
        ("model-id evaluation-file-id trial-type\na/x/1 a/x/2 TC\na/x/1 b/x/1 IC\n", (2, 3)),
        ("a/x/1 a/x/2 target-correct\na/x/1 b/x/1 impostor-correct\n", (1, 2)),
    ],
)
def test_formats_are_told_by_their_content(tmp_path, text, numbers):
    path = write(tmp_path, text)
    trials = read_trials(path)
    assert trials.ids == ["a/x/1", "a/x/2", "b/x/1"]
    assert trials.enrol.tolist() == [0, 0] and trials.test.tolist() == [1, 2]
    assert trials.target.tolist() == [True, False]
    with pytest.raises(ValueError, match=rf"trials\.txt:{numbers[1]}: no utterance b/x/1"):
        read_trials(path, known_ids={"a/x/1", "a/x/2"})
    with pytest.raises(ValueError, match=r"trials\.txt:\d+: expected `.*`: a/x/1 b/x/1 maybe"):
        read_trials(
            write(tmp_path, re.sub(r"(nontarget|0|IC|impostor-correct)(?=(;b.*|,f)?\n$)", "maybe", text))
        )


MODELS = "model-id phrase-id enroll-file-id1 enroll-id2\nm1 05 a/x/1.wav a/x/2.wav\nm2 06 b/x/1 b/x/2\nm3 06 c/x/1\n"
MODEL_TRIALS = (
    "model-id evaluation-file-id trial-type\nm2 a/x/3 impostor-correct\nm1 a/x/3 TC\nm1 a/x/4.wav TW\n"
)


def write_model_trials(folder, models=MODELS, trials=MODEL_TRIALS):
    (folder / "models.txt").write_text(models)
    return write(folder, trials), folder / "models.txt"


def test_models_of_several_utterances(tmp_path):
    path, enrolment = write_model_trials(tmp_path)
    trials = read_trials(path, enrolment=enrolment)
    assert [(model.id, model.phrase) for model in trials.models] == [("m2", "06"), ("m1", "05")]
    assert trials.ids == ["b/x/1", "b/x/2", "a/x/1", "a/x/2", "a/x/3", "a/x/4"]  # those of m3 take no part
    assert [model.utterances for model in trials.models] == [(0, 1), (2, 3)]
    assert trials.enrol.tolist() == [0, 1, 1] and trials.test.tolist() == [4, 4, 5]
    assert trials.target.tolist() == [False, True, False]
    assert trials.is_type("target-wrong").tolist() == [False, False, True]
    assert not trials.is_type("impostor-wrong").any()
    for format in ("sdsv", "csv", "kaldi", "voxceleb"):
        write_trials(tmp_path / "again.txt", trials, format)
        write_models(tmp_path / "models_again.txt", trials)
        again = read_trials(tmp_path / "again.txt", enrolment=tmp_path / "models_again.txt")
        assert (again.ids, again.models) == (trials.ids, trials.models)
        assert np.array_equal(again.target, trials.target) and np.array_equal(again.test, trials.test)
        if format in ("sdsv", "csv"):
            assert again.is_type("target-wrong").tolist() == [False, False, True]


def test_labels_from_a_key(tmp_path):
    unlabelled = MODEL_TRIALS.replace(" trial-type", "").replace(" TC", "").replace(" TW", "")
    path, enrolment = write_model_trials(tmp_path, trials=unlabelled.replace(" impostor-correct", ""))
    key = tmp_path / "key.txt"
    key.write_text("m3 c/x/9 TC\n" + "\n".join(MODEL_TRIALS.splitlines()[:0:-1]) + "\n")
    trials = read_trials(path, enrolment=enrolment, key=key)
    assert trials.ids[-2:] == ["a/x/3", "a/x/4"] and len(trials.models) == 2
    assert trials.target.tolist() == [False, True, False]
    assert trials.is_type("impostor-correct").tolist() == [True, False, False]
    with pytest.raises(ValueError, match="has no labels: give the file that has them as key"):
        read_trials(path, enrolment=enrolment)
    key.write_text("m1 a/x/3 TC\n")
    with pytest.raises(
        ValueError, match="2 trials are not in the key .*key.txt: trial of line 2, trial of line 4"
    ):
        read_trials(path, enrolment=enrolment, key=key)


def test_unknown_models_and_bad_enrolment_files(tmp_path):
    path, enrolment = write_model_trials(tmp_path, models=MODELS.replace("m2", "m9"))
    with pytest.raises(ValueError, match=r"trials\.txt:2: no model \(in .*models\.txt\) m2"):
        read_trials(path, enrolment=enrolment)
    path, enrolment = write_model_trials(tmp_path)
    known = {"a/x/1", "a/x/2", "a/x/3", "a/x/4", "b/x/1"}
    with pytest.raises(ValueError, match=r"models\.txt:3: no utterance b/x/2"):
        read_trials(path, known_ids=known, enrolment=enrolment)
    for line, message in (
        ("m1 05 d/x/1", "5: model m1 of line 2 again"),
        ("m4 05", "5: model m4 has no utterance"),
        ("m4 05 d/x/1.wav d/x/1.flac", "5: model m4 has an utterance twice"),
    ):
        path, enrolment = write_model_trials(tmp_path, models=MODELS + line)
        with pytest.raises(ValueError, match=message):
            read_trials(path, enrolment=enrolment)
    with pytest.raises(FileNotFoundError, match="no enrolment file at .*nowhere"):
        read_trials(path, enrolment=tmp_path / "nowhere")


def test_enrolment_files_without_header(tmp_path):
    for models in (MODELS.partition("\n")[2], "m1 a/x/1 a/x/2\nm2 b/x/1 b/x/2\n"):
        path, enrolment = write_model_trials(tmp_path, models=models)
        assert read_trials(path, enrolment=enrolment).ids[:4] == ["b/x/1", "b/x/2", "a/x/1", "a/x/2"]


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_blocks_do_not_show(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(trial_formats, "_ROWS_PER_BLOCK", rows)
    monkeypatch.setattr(trial_formats, "_CHARACTERS_PER_BLOCK", 11 * rows)
    rng = np.random.default_rng(0)
    lines = [f"{a % 2} s/{a} s/{b}" + "\n" * (1 + a % 3) for a, b in rng.permutation(900).reshape(-1, 2)]
    trials = read_trials(write(tmp_path, "".join(lines)))
    named = [
        f"{int(t)} {trials.ids[e]} {trials.ids[s]}"
        for t, e, s in zip(trials.target, trials.enrol, trials.test, strict=True)
    ]
    assert named == [line.strip() for line in lines]
    bad = sum(line.count("\n") for line in lines[:400])
    with pytest.raises(ValueError, match=rf"trials\.txt:{bad + 1}: expected `0\|1 enrolment test`: 1 s/1$"):
        read_trials(write(tmp_path, "".join([*lines[:400], "1 s/1\n", *lines[400:]])))
    again = read_trials(write(tmp_path, "".join([*lines[:400], lines[7].strip() + "\n", *lines[400:]])))
    assert again.ids == trials.ids and np.array_equal(again.enrol, trials.enrol)
    comma = read_trials(
        write(tmp_path, "label enrol test\n".replace(" ", ",") + "".join(lines).replace(" ", ","))
    )
    assert comma.ids == trials.ids and np.array_equal(comma.target, trials.target)


def test_lines_of_two_and_four_words_do_not_make_up_for_each_other(tmp_path):
    for text in ("1 a/1 a/2\n0 a\n1 0 b c\n", "1 a/1 a/2\n0 b \0\n0 c\n", "1 a/1 a/2\n0 b\n \0 0 b c\n"):
        with pytest.raises(ValueError, match=r"trials\.txt:[23]: expected"):
            read_trials(write(tmp_path, text))


def test_cut_off_archive_is_a_clear_error(tmp_path):
    whole = gzip.compress(b"".join(b"1 a/x/%d a/y/%d\n" % (i, i * i) for i in range(9999)))
    (tmp_path / "trials.txt").write_bytes(whole)  # gzipped whatever its name
    assert len(read_trials(tmp_path / "trials.txt")) == 9999
    (tmp_path / "trials.txt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="trials.txt is cut off or damaged"):
        read_trials(tmp_path / "trials.txt")
    with pytest.raises(
        ValueError, match="trials.txt:1: no format of trial lists starts with `just some words here`"
    ):
        read_trials(write(tmp_path, "just some words here\n"))


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


def test_groups_keep_nontarget_trials_within_themselves():
    ids = [f"p{s:02d}/s/{n}" for s in range(20) for n in range(10)]
    speakers = [speaker_of(i) for i in ids]
    groups = ["mf"[int(s[1:]) % 2] for s in speakers]
    gender = dict(zip(speakers, groups, strict=True))
    for nontargets in (600, 10**6):
        trials = make_trials(ids, speakers, 60, nontargets, seed=1, groups=groups)
        sides = [
            [speaker_of(trials.ids[i]) for i in side[~trials.target]] for side in (trials.enrol, trials.test)
        ]
        assert all(a != b and gender[a] == gender[b] for a, b in zip(*sides, strict=True))
        assert len(sides[0]) == min(nontargets, 2 * 45 * 100)
    with pytest.raises(ValueError, match="speaker p00 is in several groups: f, m"):
        make_trials(ids, speakers, 60, 60, seed=1, groups=["f", *groups[1:]])
    with pytest.raises(ValueError, match="each group has one speaker"):
        make_trials(ids, speakers, 60, 60, seed=1, groups=speakers)


def test_hard_lists_compare_similar_speakers():
    rng = np.random.default_rng(0)
    ids = [f"p{s:02d}/s/{n}" for s in range(30) for n in range(10)]
    order = rng.permutation(len(ids))
    ids = [ids[i] for i in order]
    speakers = [speaker_of(i) for i in ids]
    # Speakers 3k, 3k + 1 and 3k + 2 are alike.
    centre = np.repeat(np.eye(10), 3, axis=0) + 0.1 * rng.normal(size=(30, 10))
    embeddings = centre[[int(s[1:]) for s in speakers]] + 0.1 * rng.normal(size=(300, 10))
    trials = make_trials(ids, speakers, 100, 900, seed=1, embeddings=embeddings, nearest=2)
    seen = Counter()
    for enrol, test in zip(trials.enrol[~trials.target], trials.test[~trials.target], strict=True):
        a, b = (speaker_of(trials.ids[i]) for i in (enrol, test))
        assert a != b and int(a[1:]) // 3 == int(b[1:]) // 3
        seen.update((a, b))
    assert len(seen) == 30 and min(seen.values()) > 40  # 60 on average
    again = make_trials(ids[::-1], speakers[::-1], 100, 900, seed=1, embeddings=embeddings[::-1], nearest=2)
    assert as_set(again) == as_set(trials)
    with pytest.raises(ValueError, match="299 embeddings for 300 utterances"):
        make_trials(ids, speakers, 1, 1, seed=1, embeddings=embeddings[1:])
    with pytest.raises(ValueError, match="nearest is 0"):
        make_trials(ids, speakers, 1, 1, seed=1, embeddings=embeddings, nearest=0)


def test_list_from_a_csv(tmp_path):
    path = tmp_path / "utterances.csv"
    rows = [f"p{s}/s{n % 2}/{n}.opus,p{s},{'mf'[s % 2]}" for s in range(6) for n in range(6)]
    for header in ("utterance,speaker,gender", "ID,spk_id,gender"):
        path.write_text("\n".join([header, *rows]))
        trials = make_trials_from_csv(path, 30, 30, seed=2, within="gender")
        assert len(trials) == 60 and "p0/s0/0" in trials.ids
        for enrol, test in zip(trials.enrol, trials.test, strict=True):
            assert int(trials.ids[enrol][1]) % 2 == int(trials.ids[test][1]) % 2
    with pytest.raises(ValueError, match="has no column age: it has ID, spk_id, gender"):
        make_trials_from_csv(path, 30, 30, seed=2, within="age")
    path.write_text("\n".join([header, *rows, rows[3]]))
    with pytest.raises(ValueError, match="names the utterance p0/s1/3 more than once"):
        make_trials_from_csv(path, 30, 30, seed=2)


def test_real_lists(speech_data):
    meta = speech_data / "arabic_speech_commands" / "meta"
    trials = read_trials(meta / "trials.txt", enrolment=meta / "model_enrollment.txt")
    assert (len(trials), len(trials.models), trials.target.sum()) == (31200, 480, 2400)
    assert [trials.is_type(name).sum() for name in ("target-wrong", "impostor-wrong")] == [9600, 9600]
    speaker = np.array([speaker_of(utterance) for utterance in trials.ids])
    phrase = np.array([utterance.split("/")[1] for utterance in trials.ids])
    first = np.array([model.utterances[0] for model in trials.models])[trials.enrol]
    same = speaker[first] == speaker[trials.test], phrase[first] == phrase[trials.test]
    assert np.array_equal(trials.target, same[0] & same[1])
    assert np.array_equal(trials.is_type("target-wrong"), same[0] & ~same[1])
    assert all(model.phrase == phrase[model.utterances[1]] for model in trials.models)
    hard = read_trials(speech_data / "voxceleb_meta" / "verif_hard.txt.gz")
    assert (len(hard), len(hard.ids)) == (552_536, 138_137)
    assert np.array_equal(
        hard.target,
        [
            speaker_of(hard.ids[e]) == speaker_of(hard.ids[t])
            for e, t in zip(hard.enrol.tolist(), hard.test.tolist(), strict=True)
        ],
    )


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
