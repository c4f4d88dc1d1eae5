"""RSR2015 on a small folder in its layout: which part, which speakers for what, its protocol."""

import csv
from collections import Counter

import pytest
import soundfile

from speechbrain_bccmt.corpora.rsr2015 import find_rsr2015, prepare_rsr2015, protocol_files, speaker_set
from speechbrain_bccmt.trials.read import read_trials
from tests.corpora.phrase_corpora import write_noise

SPEAKERS = ("m001", "m050", "f047", "m051", "m100", "f048", "f094", "m101", "m157", "f095", "f143")
SESSIONS = (1, 2, 4, 5, 7)
SENTENCES = (31, 60)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make the corpus in sphere files: two sentences of Part II, one of Part I, and the keys for the men."""
    folder = tmp_path_factory.mktemp("rsr")
    for speaker in SPEAKERS:
        sex = "male" if speaker[0] == "m" else "female"
        for session in SESSIONS:
            for sentence in (*SENTENCES, 30):
                name = f"{speaker}_{session:02d}_{sentence:03d}.sph"
                write_noise(folder / "sph" / sex / speaker / name)
    return folder


@pytest.fixture
def corpus(template, tmp_path):
    """Return the corpus with keys that may be changed."""
    folder = tmp_path / "RSR2015"
    folder.mkdir()
    (folder / "sph").symlink_to(template / "sph")
    key = folder / "key" / "part2"
    (key / "trn").mkdir(parents=True)
    (key / "ndx").mkdir()
    men = ("m101", "m157")
    enrolled = "".join(
        f"{man}_{s:03d}," + ",".join(f"male/{man}/{man}_{n:02d}_{s:03d}.sph" for n in (1, 4, 7)) + "\n"
        for man in men
        for s in SENTENCES
    )
    (key / "trn" / "3sesspwd_eval_m.trn").write_text(enrolled)
    lines = [
        f"{man}_{s:03d},{other}/{other}_05_{t:03d}.sph,"
        + ",".join("NY"[(man == other, s == t) == case] for case in ((1, 1), (1, 0), (0, 1), (0, 0)))
        for man in men
        for s in SENTENCES
        for other in men
        for t in SENTENCES
    ]
    (key / "ndx" / "3sess-pwd_eval_m.ndx").write_text("\n".join(lines) + "\n")
    return folder


def prepare(corpus, **options):
    options = {"dev_speakers": 2, "dev_trials": 8, "progress": False} | options
    return prepare_rsr2015(corpus, corpus / "save", **options)


def speakers_of(path):
    with open(path, newline="") as file:
        return {row["ID"].split("/")[0] for row in csv.DictReader(file)}


def test_the_sets_are_told_by_the_numbers():
    sets = {speaker: speaker_set(speaker) for speaker in SPEAKERS}
    assert Counter(sets.values()) == {"background": 3, "development": 4, "evaluation": 4}
    assert {speaker for speaker, name in sets.items() if name == "background"} == {"m001", "m050", "f047"}
    numbers = [("m", 157), ("f", 143)]
    every = Counter(speaker_set(f"{sex}{n:03d}") for sex, last in numbers for n in range(1, last + 1))
    assert every == {"background": 97, "development": 97, "evaluation": 106}
    for strange in ("m158", "f144", "m000"):
        with pytest.raises(ValueError, match=strange):
            speaker_set(strange)


def test_sphere_files_of_part_two_are_found_with_what_their_names_say(corpus):
    utterances = find_rsr2015(corpus)
    assert len(utterances) == len(SPEAKERS) * len(SESSIONS) * 2
    one = utterances["f048/f048_02_060"]
    assert one[1:] == ("f048", "060", "dev", False, "f", "")
    assert utterances["m001/m001_04_031"][1:] == ("m001", "031", "train", True, "m", "")
    assert utterances["m157/m157_07_031"].part == "test"
    assert soundfile.info(one.file.path).format == "NIST"
    assert {u.phrase for u in find_rsr2015(corpus, part=1).values()} == {"030"}
    both = find_rsr2015(corpus, train_on=("background", "development"))
    assert {u.part for u in both.values()} == {"train", "test"}


def test_wav_beside_sph_is_taken_and_upper_case_is_read(tmp_path):
    for name in ("M001_01_031.sph", "M001_01_031.wav", "M001_02_031.WAV"):
        write_noise(tmp_path / "male" / "M001" / name.lower())
        (tmp_path / "male" / "M001" / name.lower()).rename(tmp_path / "male" / "M001" / name)
    found = find_rsr2015(tmp_path)
    assert [utterance.file.path[-4:] for utterance in found.values()] == [".wav", ".WAV"]
    assert list(found) == ["m001/m001_01_031", "m001/m001_02_031"]


def test_each_set_goes_where_it_belongs(corpus):
    made = prepare(corpus)
    assert speakers_of(made.train_csv) == {"m001", "m050", "f047"}
    assert speakers_of(made.dev_csv) < {"m051", "m100", "f048", "f094"} and made.n_dev_speakers == 2
    assert speakers_of(made.test_csv) == {"m101", "m157", "f095", "f143"}
    assert (made.n_phrases, made.n_utterances) == (2, 3 * 2 * 5)
    dev = read_trials(made.dev_trials, enrolment=made.dev_models)
    assert all(dev.ids[i][-6:-4] in ("01", "04", "07") for model in dev.models for i in model.utterances)
    assert all(dev.ids[i][-6:-4] in ("02", "05") for i in dev.test)
    assert prepare(corpus).rebuilt is False


def test_the_official_protocol_is_taken_over(corpus):
    made = prepare(corpus)
    trials = read_trials(made.test_trials, enrolment=made.test_models)
    assert len(trials) == 16 and len(trials.models) == 4
    counts = Counter(trials.trial_types[kind] for kind in trials.trial_type)
    assert counts == dict.fromkeys(trials.trial_types, 4)
    for row in range(len(trials)):
        model, test = trials.models[trials.enrol[row]], trials.ids[trials.test[row]]
        same = model.id[:4] == test[:4], model.phrase == test[-3:]
        assert trials.is_type("target-wrong")[row] == (same == (True, False))
        assert trials.is_type("impostor-correct")[row] == (same == (False, True))
        assert trials.target[row] == all(same)
    fewer = prepare(corpus, trial_types=("target-correct", "impostor-correct"))
    assert len(read_trials(fewer.test_trials, enrolment=fewer.test_models)) == 8


def test_trials_are_drawn_where_asked_within_a_sex(corpus):
    made = prepare(corpus, protocol="drawn", test_trials=32)
    trials = read_trials(made.test_trials, enrolment=made.test_models)
    assert len(trials) == 32
    assert all(
        trials.ids[trials.models[enrol].utterances[0]][0] == trials.ids[test][0]
        for enrol, test in zip(trials.enrol, trials.test, strict=True)
    )


def test_a_changed_protocol_is_seen(corpus):
    prepare(corpus)
    path = corpus / "key/part2/ndx/3sess-pwd_eval_m.ndx"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    made = prepare(corpus)
    assert made.rebuilt and len(read_trials(made.test_trials, enrolment=made.test_models)) == 15


def test_missing_and_doubtful_protocols_are_told(corpus):
    (corpus / "key/part2/ndx/other_eval_m.ndx").touch()
    with pytest.raises(ValueError, match=r"one \*eval_m.trn and one \*eval_m.ndx, but has"):
        protocol_files(corpus)
    with pytest.raises(FileNotFoundError, match="part1.*protocol=drawn"):
        protocol_files(corpus, part=1)
    with pytest.raises(ValueError, match="expected official or drawn"):
        prepare(corpus, protocol="random")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("ndx/3sess-pwd_eval_m.ndx", "m101_031,m101/m101_05_031.sph,Y", "expected 6 columns"),
        (
            "ndx/3sess-pwd_eval_m.ndx",
            "m101_031,m101/m101_09_031.sph,Y,N,N,N",
            "m101_09_031.sph, which is not there",
        ),
        (
            "trn/3sesspwd_eval_m.trn",
            "m101_060,male/m101/m101_01_059.sph",
            "m101_01_059.sph, which is not there",
        ),
    ],
)
def test_wrong_lines_of_a_protocol_are_told(file, line, message, corpus):
    with open(corpus / "key/part2" / file, "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        prepare(corpus)


def test_folders_of_other_things_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        find_rsr2015(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="looked for sph/male, sph/female, wav/male"):
        find_rsr2015(tmp_path)
    (tmp_path / "sph" / "male").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no audio of Part 2 .*031 to 060.* no audio at all"):
        find_rsr2015(tmp_path)
    write_noise(tmp_path / "sph/male/m001/m001_01_003.sph")
    with pytest.raises(FileNotFoundError, match="sentences 003 to 003 are there"):
        find_rsr2015(tmp_path)
    write_noise(tmp_path / "sph/male/m001/hello.wav")
    with pytest.raises(ValueError, match="1 files are not named as RSR2015's.*hello.wav"):
        find_rsr2015(tmp_path)


def test_options_out_of_range_are_told(corpus):
    with pytest.raises(ValueError, match="part=3"):
        find_rsr2015(corpus, part=3)
    with pytest.raises(ValueError, match="train_on"):
        find_rsr2015(corpus, train_on=("evaluation",))
    with pytest.raises(ValueError, match="train_on"):
        find_rsr2015(corpus, train_on=())
