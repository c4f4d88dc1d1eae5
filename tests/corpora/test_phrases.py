"""Phrase corpora: the CSV that describes one, the trials drawn over it, and what is written for training."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from speechbrain.dataio.dataio import load_data_csv

from speechbrain_bccmt.corpora import preparation as phrase_preparation
from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.corpora.phrase_csv import prepare_phrase_csv
from speechbrain_bccmt.corpora.phrase_preparation import prepare_phrases
from speechbrain_bccmt.corpora.phrase_trials import enrol_phrases, make_phrase_trials
from speechbrain_bccmt.corpora.phrases import PhraseUtterance, class_labels, read_phrase_csv
from speechbrain_bccmt.corpora.preparation import prepare_from_hparams
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.trials.read import read_trials
from tests.corpora.phrase_corpora import write_noise

SPEAKERS = ("anna", "ben", "cleo", "dora", "emil", "fay")
PHRASES = ("hello", "good_bye", "thanks")
TAKES = 5


@pytest.fixture
def corpus(tmp_path):
    """Make a corpus of six speakers, three phrases and five takes, with its CSV; fay and emil are in the trials."""
    rows = ["utterance,speaker,phrase,take"]
    for speaker in SPEAKERS:
        for phrase in PHRASES:
            for take in range(TAKES):
                name = f"{speaker}/{phrase}/{take}.wav"
                write_noise(tmp_path / "wav" / name)
                rows.append(f"{name},{speaker},{phrase},{take}")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/utterances.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "meta/model_enrollment.txt").write_text(
        "model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3\n"
        "m0 hello fay/hello/0.wav fay/hello/1.wav fay/hello/2.wav\n"
    )
    (tmp_path / "meta/trials.txt").write_text(
        "model-id evaluation-file-id trial-type\n"
        "m0 fay/hello/3.wav target-correct\n"
        "m0 fay/thanks/3.wav target-wrong\n"
        "m0 emil/hello/3.wav impostor-correct\n"
    )
    return tmp_path


def described(speakers, phrases, takes, **fields):
    """Describe a corpus without files."""
    return {
        f"{speaker}/{phrase}/{take}": PhraseUtterance(AudioFile("", 0, 0), speaker, phrase, **fields)
        for speaker in speakers
        for phrase in phrases
        for take in range(takes)
    }


def prepare(corpus, save="save", **options):
    options = {"dev_speakers": 2, "dev_trials": 24, "progress": False} | options
    return prepare_phrase_csv(corpus, corpus / save, **options)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def type_of(utterances, trials, row):
    """Return the type of a trial, told from who says what."""
    model = utterances[trials.ids[trials.models[trials.enrol[row]].utterances[0]]]
    test = utterances[trials.ids[trials.test[row]]]
    who = "target" if model.speaker == test.speaker else "impostor"
    return f"{who}-{'correct' if model.phrase == test.phrase else 'wrong'}"


# Trials


def test_every_trial_is_of_its_type_and_none_occurs_twice():
    utterances = described(SPEAKERS, PHRASES, TAKES)
    trials = make_phrase_trials(utterances, 96, seed=3)
    kinds = [trials.trial_types[kind] for kind in trials.trial_type]
    assert kinds == [type_of(utterances, trials, row) for row in range(len(trials))]
    assert Counter(kinds) == dict.fromkeys(trials.trial_types, 24)
    assert (trials.target == (np.array(kinds) == "target-correct")).all()
    pairs = list(zip(trials.enrol.tolist(), trials.test.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    enrolled = {i for model in trials.models for i in model.utterances}
    assert not enrolled & set(trials.test.tolist())
    assert len(kinds[:10]) and len(set(kinds[:12])) > 2, "in random order"


def test_models_have_even_shares_and_few_pairs_are_all_taken():
    utterances = described(SPEAKERS, PHRASES, TAKES)
    trials = make_phrase_trials(utterances, 4 * 18, seed=3)
    for kind in range(4):
        assert (np.bincount(trials.enrol[trials.trial_type == kind], minlength=18) == 1).all()
    every = make_phrase_trials(utterances, 10**6, seed=3)
    per_model = {"target-correct": 2, "target-wrong": 4, "impostor-correct": 10, "impostor-wrong": 20}
    assert Counter(every.trial_type.tolist()) == {
        kind: 18 * count for kind, count in enumerate(per_model.values())
    }


def test_the_order_of_utterances_does_not_matter_and_the_seed_does():
    utterances = described(SPEAKERS, PHRASES, TAKES)
    back = dict(reversed(utterances.items()))
    one, two, other = (make_phrase_trials(u, 40, s) for u, s in ((utterances, 1), (back, 1), (utterances, 2)))
    assert one.ids == two.ids and (one.enrol == two.enrol).all() and (one.test == two.test).all()
    assert one.ids != other.ids or (one.test != other.test).any()


def test_groups_keep_impostors_and_wrong_phrases_apart():
    utterances = {
        name: utterance._replace(
            speaker_group="f" if utterance.speaker in "anna cleo dora fay".split() else "m",
            phrase_group="a" if utterance.phrase != "thanks" else "b",
        )
        for name, utterance in described(SPEAKERS, PHRASES, TAKES).items()
    }
    trials = make_phrase_trials(utterances, 10**5, seed=1)
    for enrol, test in zip(trials.enrol, trials.test, strict=True):
        model = utterances[trials.ids[trials.models[enrol].utterances[0]]]
        assert model.speaker_group == utterances[trials.ids[test]].speaker_group
        assert model.phrase_group == utterances[trials.ids[test]].phrase_group


def test_marked_utterances_enrol_and_are_never_tested():
    utterances = described(("anna", "ben"), PHRASES, 6)
    utterances = {name: utterance._replace(enrol=name[-1] in "135") for name, utterance in utterances.items()}
    models, tests = enrol_phrases(utterances)
    assert models["anna", "hello"] == ("anna/hello/1", "anna/hello/3", "anna/hello/5")
    assert {name[-1] for name in tests} == set("024")
    del utterances["anna/hello/3"]  # two takes are left: too few for a model, and still not used as tests
    models, tests = enrol_phrases(utterances)
    assert ("anna", "hello") not in models and "anna/hello/1" not in tests and "anna/hello/0" in tests


def test_one_phrase_gives_no_wrong_phrases():
    trials = make_phrase_trials(described(("anna", "ben"), ("hello",), 5), 40, seed=1)
    assert np.bincount(trials.trial_type, minlength=4).tolist() == [4, 0, 4, 0]


def test_phrases_of_several_words_are_one_column(tmp_path):
    trials = make_phrase_trials(described(("anna", "ben"), ("open the door",), 5), 40, seed=1)
    assert trials.models[0].phrase == "open_the_door"


@pytest.mark.parametrize(
    ("takes", "speakers", "options", "message"),
    [
        (3, SPEAKERS, {}, "no target trial"),
        (5, ("anna",), {}, "no non-target trial"),
        (5, SPEAKERS, {"count": 3}, "count is 3"),
        (5, SPEAKERS, {"enrolment": 0}, "enrolment is 0"),
        (5, SPEAKERS, {"types": ["target-correct", "targetwrong"]}, "targetwrong"),
        (5, SPEAKERS, {"types": ["target-wrong"]}, "no target trial"),
    ],
)
def test_what_cannot_be_drawn_is_told(takes, speakers, options, message):
    phrases = PHRASES if len(speakers) > 1 else PHRASES[:1]
    with pytest.raises(ValueError, match=message):
        make_phrase_trials(described(speakers, phrases, takes), **{"count": 40, "seed": 1} | options)


# The CSV


def test_columns_may_have_speechbrains_names_and_wav_paths(tmp_path):
    for name in ("a1.wav", "a2.flac"):
        write_noise(tmp_path / "sound" / name)
    (tmp_path / "meta.csv").write_text(
        "ID,spk_id,phrase,wav,gender,language\n"
        "one,anna,open the door,sound/a1.wav,f,en\n"
        f"two,anna,hello,{tmp_path}/sound/a2.flac,f,en\n"
    )
    utterances = read_phrase_csv(tmp_path / "meta.csv", tmp_path)
    assert list(utterances) == ["one", "two"]
    assert utterances["one"][1:] == ("anna", "open the door", "train", None, "f", "en")
    assert utterances["two"].file.path == f"{tmp_path}/sound/a2.flac"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("utterance,speaker\na.wav,anna\n", "no column phrase; its header is utterance,speaker"),
        ("who,what\na,b\n", "no column utterance or ID, no column speaker or spk_id, no column phrase"),
        ("", "no column"),
        ("utterance,speaker,phrase\n", "names no utterances"),
        ("utterance,speaker,phrase\na.wav,anna,hi\na.wav,ben,hi\n", "line 3 repeats a of line 2"),
        ("utterance,speaker,phrase\na.wav,,hi\n", "line 2 has no speaker"),
        ("utterance,speaker,phrase\na.wav,anna\n", "line 2 has no phrase"),
        ("utterance,speaker,phrase\nb.wav,anna,hi\n", "line 2: no file .*b.wav"),
        ("utterance,speaker,phrase\nb,anna,hi\n", "in a column wav"),
        ("utterance,speaker,phrase\na b.wav,anna,hi\n", "space in 'a b'"),
        (b"utterance,speaker,phrase\n\xff\xfe,a,b\n", "UTF-8"),
    ],
)
def test_a_wrong_csv_is_told(text, message, tmp_path):
    write_noise(tmp_path / "a.wav")
    (tmp_path / "meta.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as raised:
        read_phrase_csv(tmp_path / "meta.csv", tmp_path)
    assert "meta.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_missing_csv_and_folder_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no CSV of utterances at .*meta.csv"):
        read_phrase_csv(tmp_path / "meta.csv", tmp_path)
    (tmp_path / "meta.csv").touch()
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        read_phrase_csv(tmp_path / "meta.csv", tmp_path / "nowhere")


def test_classes_are_speakers_or_their_phrases():
    utterances = described(("anna", "ben"), ("hi", "bye"), 1)
    assert len(set(class_labels(utterances, "speaker").values())) == 2
    assert len(set(class_labels(utterances, "speaker-phrase").values())) == 4
    with pytest.raises(ValueError, match="class_of is 'phrase'"):
        class_labels(utterances, "phrase")
    clash = {n: PhraseUtterance(AudioFile("", 0, 0), *n.split()) for n in ("a/b c", "a b/c")}
    with pytest.raises(ValueError, match="leave '/' out"):
        class_labels(clash, "speaker-phrase")


# Preparation


def test_test_speakers_and_dev_speakers_are_not_trained_on(corpus):
    made = prepare(corpus)
    train, dev, test = (rows_of(path) for path in (made.train_csv, made.dev_csv, made.test_csv))
    speakers = [{row["ID"].split("/")[0] for row in part} for part in (train, dev, test)]
    assert speakers[2] == {"emil", "fay"} and len(speakers[0]) == len(speakers[1]) == 2
    assert not speakers[0] & speakers[1] and not (speakers[0] | speakers[1]) & speakers[2]
    assert {row["ID"] for row in test} == {
        *("fay/hello/0", "fay/hello/1", "fay/hello/2", "fay/hello/3", "fay/thanks/3", "emil/hello/3")
    }
    assert len(train) == made.n_utterances == 2 * 3 * 5
    assert (made.n_speakers, made.n_phrases, made.n_classes) == (2, 3, 2)
    assert (made.n_dev_speakers, made.n_test_speakers, made.n_test_utterances) == (2, 2, 6)
    assert made.n_hours == pytest.approx(30 * 0.05 / 3600, abs=1e-4)
    assert train[0]["duration"] == "0.0500" and train[0]["stop"] == "800"


def test_dev_lists_read_back_and_name_the_dev_utterances(corpus):
    made = prepare(corpus)
    trials = read_trials(made.dev_trials, enrolment=made.dev_models)
    assert {row["ID"] for row in rows_of(made.dev_csv)} == set(trials.ids)
    assert len(trials) == made.n_dev_trials == 24
    utterances = read_phrase_csv(corpus / "meta/utterances.csv", corpus)
    kinds = [trials.trial_types[kind] for kind in trials.trial_type]
    assert kinds == [type_of(utterances, trials, row) for row in range(len(trials))]
    assert all(len(model.utterances) == 3 for model in trials.models)


def test_training_crops_take_the_csv_with_phrase_classes(corpus):
    made = prepare(corpus, class_of="speaker-phrase")
    crops = TrainingCrops(load_data_csv(made.train_csv), corpus / "labels.txt", crop_seconds=0.04)
    crops.set_epoch(1)
    assert crops.n_classes == made.n_classes == 6
    assert crops[0]["sig"].shape == (640,)
    assert {row["spk_id"] for row in rows_of(made.train_csv)} == set(crops.encoder.lab2ind)


def test_without_changes_nothing_is_read_again(corpus, monkeypatch):
    first = prepare(corpus)
    monkeypatch.setattr(phrase_preparation, "read_utterances", lambda *_: pytest.fail("read again"))
    again = prepare(corpus)
    assert not again.rebuilt and again.train_csv == first.train_csv
    monkeypatch.undo()
    assert prepare(corpus, seed=7).rebuilt
    assert prepare(corpus, class_of="speaker-phrase", seed=7).rebuilt
    text = (corpus / "meta/utterances.csv").read_text()
    (corpus / "meta/utterances.csv").write_text(text.replace("anna,hello", "anna,good_bye"))
    assert prepare(corpus, class_of="speaker-phrase", seed=7).rebuilt


def test_a_changed_file_or_output_is_seen(corpus):
    made = prepare(corpus)
    write_noise(corpus / "wav/anna/hello/0.wav", seconds=0.07)
    assert prepare(corpus).rebuilt
    with open(made.dev_trials, "a") as file:
        file.write("model_00000 x target-wrong\n")
    assert prepare(corpus).rebuilt
    assert "x target-wrong" not in open(made.dev_trials).read()


def test_fewer_parts_remove_the_files_of_more(corpus):
    made = prepare(corpus)
    assert prepare(corpus, dev_speakers=0).dev_trials is None
    assert not (corpus / "save/dev_trials.txt").exists()
    test_only = prepare(corpus, training=False)
    assert test_only.train_csv is None and not (corpus / "save/train.csv").exists()
    assert rows_of(made.test_csv) and test_only.n_test_utterances == 6
    assert test_only.test_trials == str(corpus / "meta/trials.txt")


def test_without_lists_all_speakers_are_for_training(corpus):
    trials = (corpus / "meta/trials.txt").rename(corpus / "trials.txt")
    with pytest.raises(ValueError, match="model_enrollment.txt is alone"):
        prepare(corpus)
    models = (corpus / "meta/model_enrollment.txt").rename(corpus / "models.txt")
    made = prepare(corpus)
    assert (made.n_speakers, made.n_test_utterances, made.test_trials) == (4, 0, None)
    with pytest.raises(ValueError, match="or neither"):
        prepare(corpus, trials=trials)
    assert prepare(corpus, trials=trials, model_enrollment=models).n_test_utterances == 6
    (corpus / "meta/utterances.csv").rename(corpus / "corpus.csv")
    assert prepare(corpus, csv_file=corpus / "corpus.csv").n_speakers == 4


def test_recipes_hand_over_the_options_of_a_corpus(corpus):
    hparams = {"data_folder": corpus, "save_folder": corpus / "save", "corpus_options": {"enrolment": 2}}
    options = {"dev_speakers": 2, "dev_trials": 16, "progress": False}
    made = prepare_from_hparams(prepare_phrase_csv, hparams, **options)
    assert {
        len(model.utterances) for model in read_trials(made.dev_trials, enrolment=made.dev_models).models
    } == {2}
    for wrong, message in (({"takes": 2}, "'takes'"), ({"dev_trials": 2}, "sets dev_trials, which")):
        with pytest.raises(ValueError, match=f"corpus_options.*{message}"):
            prepare_from_hparams(prepare_phrase_csv, hparams | {"corpus_options": wrong}, **options)


def test_unreadable_files_are_skipped_up_to_a_share_but_not_in_the_test(corpus):
    (corpus / "wav/anna/hello/0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="max_unreadable=0.01"):
        prepare(corpus)
    made = prepare(corpus, max_unreadable=0.1)
    assert made.n_unreadable == 1 and "anna/hello/0.wav" in open(made.unreadable).read()
    (corpus / "wav/fay/hello/1.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="trial lists cannot be read"):
        prepare(corpus, max_unreadable=0.1)


def test_short_utterances_are_not_trained_on(corpus):
    write_noise(corpus / "wav/anna/hello/0.wav", seconds=0.02)
    made = prepare(corpus, min_duration=0.04, dev_speakers=0)
    assert made.n_short == 1 and made.n_utterances == 4 * 3 * 5 - 1


def test_trials_of_strange_utterances_are_told(corpus):
    with open(corpus / "meta/trials.txt", "a") as file:
        file.write("m0 gil/hello/3.wav impostor-correct\n")
    with pytest.raises(ValueError, match="gil/hello/3"):
        prepare(corpus)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dev_speakers": 1}, "dev_speakers=1"),
        ({"dev_speakers": 4}, "Hold out fewer"),
        ({"min_duration": 9}, "no training speaker remains"),
        ({"class_of": "both"}, "class_of is 'both'"),
        ({"dev_trials": 2}, "count is 2"),
    ],
)
def test_options_out_of_range_are_told(options, message, corpus):
    options = {"dev_speakers": 0} | options if "min_duration" in options else options
    with pytest.raises(ValueError, match=message):
        prepare(corpus, **options)
    assert not (corpus / "save/preparation.json").exists()


def test_dev_speakers_are_those_of_the_dev_part(corpus):
    utterances = {
        name: utterance._replace(part="dev" if utterance.speaker in ("ben", "cleo", "dora") else "train")
        for name, utterance in read_phrase_csv(corpus / "meta/utterances.csv", corpus).items()
    }
    made = prepare_phrases(utterances, corpus / "save", dev_speakers=2, dev_trials=16, progress=False)
    dev = {row["ID"].split("/")[0] for row in rows_of(made.dev_csv)}
    assert len(dev) == 2 and dev < {"ben", "cleo", "dora"}
    assert {row["spk_id"] for row in rows_of(made.train_csv)} == {"anna", "emil", "fay"}
    renamed = {
        name: utterance._replace(speaker=utterance.speaker + "2") for name, utterance in utterances.items()
    }
    assert prepare_phrases(renamed, corpus / "save", dev_speakers=2, dev_trials=16, progress=False).rebuilt
    with pytest.raises(ValueError, match="3 of the corpus's development speakers"):
        prepare_phrases(utterances, corpus / "save", dev_speakers=4, progress=False)


def test_a_kill_leaves_the_old_set_or_none(corpus, monkeypatch):
    prepare(corpus)
    before = {path.name: path.read_bytes() for path in (corpus / "save").iterdir()}

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phrase_preparation, "write_together", broken)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, seed=9)
    assert {path.name: path.read_bytes() for path in (corpus / "save").iterdir()} == before
    assert json.loads(before["preparation.json"])["result"]["n_speakers"] == 2


def test_real_speech(speech_data, tmp_path):
    folder = speech_data / "arabic_speech_commands"
    made = prepare_phrase_csv(folder, tmp_path, dev_speakers=4, progress=False)
    split = {row["speaker"]: row["split"] for row in rows_of(folder / "meta/split.csv")}
    assert {split[row["spk_id"]] for row in rows_of(made.train_csv)} == {"train"}
    assert (made.n_speakers, made.n_phrases, made.n_utterances) == (14, 40, 14 * 320)
    assert (made.n_test_speakers, made.n_test_utterances, made.n_dev_trials) == (12, 12 * 320, 4000 - 200)
