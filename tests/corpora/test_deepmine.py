"""DeepMine Part 1 on a small folder in the layout of its release."""

import csv
import shutil

import pytest

from speechbrain_bccmt.corpora.deepmine import find_deepmine, prepare_deepmine
from speechbrain_bccmt.trials.read import read_trials
from tests.corpora.phrase_corpora import write_noise

SPEAKERS = [f"spk_{number:06d}" for number in range(5)]
PHRASES = ("01", "02", "06", "07")


@pytest.fixture
def corpus(tmp_path):
    """Five training speakers with four takes of four phrases, two models, four test utterances."""
    labels, number = ["train-file-id speaker-id phrase-id"], 0
    for speaker in SPEAKERS:
        for phrase in PHRASES:
            for _ in range(4):
                write_noise(tmp_path / "wav" / "train" / f"trn_{number:06d}.wav")
                labels.append(f"trn_{number:06d} {speaker} {phrase}")
                number += 1
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/train_labels.txt").write_text("\n".join(labels) + "\n")
    models = ["model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3"]
    for model in range(2):
        ids = [f"enr_{3 * model + n:06d}" for n in range(3)]
        models.append(" ".join([f"model_{model:05d}", "06", *ids]))
        for name in ids:
            write_noise(tmp_path / "wav" / "enrollment" / f"{name}.wav")
    (tmp_path / "docs/model_enrollment.txt").write_text("\n".join(models) + "\n")
    trials = ["model-id evaluation-file-id"]
    for n in range(4):
        write_noise(tmp_path / "wav" / "evaluation" / f"evl_{n:06d}.wav")
        trials += [f"model_00000 evl_{n:06d}", f"model_00001 evl_{n:06d}"]
    (tmp_path / "docs/trials.txt").write_text("\n".join(trials) + "\n")
    return tmp_path


def prepare(corpus, **options):
    options = {"dev_speakers": 2, "dev_trials": 32, "progress": False} | options
    return prepare_deepmine(corpus, corpus / "save", **options)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_labels_and_audio_are_put_together(corpus):
    utterances, enrolled = find_deepmine(corpus)
    assert len(utterances) == 5 * 4 * 4 + 6 + 4
    assert utterances["trn_000004"][1:4] == ("spk_000000", "02", "train")
    assert (utterances["trn_000004"].phrase_group, utterances["trn_000008"].phrase_group) == (
        "persian",
        "english",
    )
    assert enrolled == [f"enr_{n:06d}" for n in range(6)]
    assert utterances["evl_000003"][1:4] == ("", "", "test")


def test_training_dev_and_test_are_written(corpus):
    made = prepare(corpus)
    train = rows_of(made.train_csv)
    assert len(train) == made.n_utterances == 3 * 16
    assert (made.n_speakers, made.n_phrases, made.n_dev_speakers, made.n_dev_trials) == (3, 4, 2, 32)
    assert {row["ID"] for row in rows_of(made.test_csv)} == {
        *(f"enr_{n:06d}" for n in range(6)),
        *(f"evl_{n:06d}" for n in range(4)),
    }
    assert made.test_trials == str(corpus / "docs/trials.txt")
    assert prepare(corpus).rebuilt is False


def test_wrong_phrases_of_the_dev_trials_are_of_the_same_language(corpus):
    made = prepare(corpus, dev_trials=10**4)
    trials = read_trials(made.dev_trials, enrolment=made.dev_models)
    utterances, _ = find_deepmine(corpus, testing=False)
    wrong = trials.is_type("target-wrong")
    assert wrong.sum() == 2 * 4 * 1  # one other phrase of the language, one take that does not enrol
    for enrol, test in zip(trials.enrol, trials.test, strict=True):
        phrases = trials.models[enrol].phrase, utterances[trials.ids[test]].phrase
        assert (phrases[0] < "06") == (phrases[1] < "06")


def test_the_releases_trials_are_read_with_a_key(corpus):
    made = prepare(corpus)
    key = corpus / "key.txt"
    lines = (corpus / "docs/trials.txt").read_text().splitlines()[1:]
    key.write_text("".join(f"{line} {('TC', 'IC')[n % 2]}\n" for n, line in enumerate(lines)))
    known = [row["ID"] for row in rows_of(made.test_csv)]
    trials = read_trials(made.test_trials, known, enrolment=made.test_models, key=key)
    assert trials.is_type("impostor-correct").sum() == 4 and trials.target.sum() == 4


def test_only_the_part_that_is_there_is_asked_for(corpus):
    shutil.rmtree(corpus / "wav/evaluation")
    with pytest.raises(FileNotFoundError, match="no wav/evaluation"):
        prepare(corpus)
    made = prepare(corpus, testing=False)
    assert (made.n_test_utterances, made.test_trials) == (0, None)
    write_noise(corpus / "wav/evaluation/evl_000000.wav")
    shutil.rmtree(corpus / "wav/train")
    assert prepare(corpus, training=False).n_test_utterances == 7


def test_folders_of_other_things_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        find_deepmine(tmp_path / "nowhere")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/trials.txt").touch()
    with pytest.raises(FileNotFoundError) as raised:
        find_deepmine(tmp_path)
    for name in ("docs/train_labels.txt", "wav/train", "docs/model_enrollment.txt", "wav/enrollment"):
        assert f"no {name}" in str(raised.value)
    assert "no docs/trials.txt" not in str(raised.value)


def test_an_empty_folder_of_audio_is_told(corpus):
    shutil.rmtree(corpus / "wav/train")
    (corpus / "wav/train").mkdir()
    with pytest.raises(FileNotFoundError, match="no audio .* in .*wav/train"):
        find_deepmine(corpus)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trn_000001 spk_000001", "train_labels.txt:82: expected"),
        ("trn_000001 spk_000001 06", "82: trn_000001 again"),
        ("trn_009999 spk_000001 06", "no audio of trn_009999 in wav/train"),
    ],
)
def test_wrong_labels_are_told(line, message, corpus):
    with open(corpus / "docs/train_labels.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        find_deepmine(corpus)


def test_models_without_audio_are_told(corpus):
    (corpus / "wav/enrollment/enr_000004.wav").unlink()
    with pytest.raises(ValueError, match="model_enrollment.txt:3: no audio of enr_000004"):
        find_deepmine(corpus)
