"""`bccmt trials`: the lists that it draws, and what it refuses."""

import numpy as np
import pytest
from click.testing import CliRunner

from speechbrain_bccmt.cli import main
from speechbrain_bccmt.trials.read import read_trials

SPEAKERS = [f"id{number}" for number in range(6)]
IDS = [f"{speaker}/s{session}/{n}" for speaker in SPEAKERS for session in range(2) for n in range(3)]


@pytest.fixture
def corpus(tmp_path):
    """Return a folder in VoxCeleb's layout, a CSV of it and embeddings, in which neighbours are alike."""
    for name in IDS:
        path = tmp_path / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows = [f"{name}.wav,{name[:3]},{'fm'[int(name[2]) % 2]}" for name in IDS]
    (tmp_path / "utterances.csv").write_text("\n".join(["utterance,speaker,gender", *rows]) + "\n")
    angles = np.array([0.1 * (int(name[2]) + 3 * (int(name[2]) // 2)) for name in IDS])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    order = np.random.default_rng(0).permutation(len(IDS))
    np.savez(
        tmp_path / "e.npz", ids=np.array([f"{name}.wav" for name in IDS])[order], embeddings=vectors[order]
    )
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["trials", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def pairs(path):
    """Return the two utterances of each trial, targets and others apart."""
    trials = read_trials(path)
    names = [(trials.ids[e], trials.ids[t]) for e, t in zip(trials.enrol, trials.test, strict=True)]
    return [
        [pair for pair, is_target in zip(names, trials.target, strict=True) if is_target == kind]
        for kind in (1, 0)
    ]


def test_a_folder_or_its_csv_give_the_same_list(corpus):
    result = run(corpus, corpus / "a.txt", "--targets", 12, "--nontargets", 20, "--seed", 3)
    assert "12 target and 20 non-target trials of 6 speakers" in result.stderr
    run(corpus / "utterances.csv", corpus / "b.txt.gz", "--targets", 12, "--nontargets", 20, "--seed", 3)
    same, different = pairs(corpus / "a.txt")
    assert (same, different) == tuple(pairs(corpus / "b.txt.gz"))
    assert all(a[:3] == b[:3] and a[:6] != b[:6] for a, b in same) and len(same) == 12
    assert all(a[:3] != b[:3] for a, b in different) and len(different) == 20
    run(corpus, corpus / "c.txt", "--targets", 12, "--nontargets", 20, "--seed", 4)
    assert pairs(corpus / "c.txt")[1] != different


def test_pairs_within_a_group_and_hard_ones(corpus):
    run(corpus / "utterances.csv", corpus / "a.csv", "--within", "gender", "--format", "csv")
    assert all((int(a[2]) - int(b[2])) % 2 == 0 for a, b in pairs(corpus / "a.csv")[1])
    for source in (corpus, corpus / "utterances.csv"):
        run(source, corpus / "b.txt", "--embeddings", corpus / "e.npz", "--nearest", 1)
        assert {frozenset((a[:3], b[:3])) for a, b in pairs(corpus / "b.txt")[1]} == {
            frozenset((f"id{n}", f"id{n + 1}")) for n in (0, 2, 4)
        }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{f}", "{f}/a.txt", "--within", "gender"], "--within needs a CSV"),
        (["{f}/utterances.csv", "{f}/a.txt", "--within", "age"], "no column age"),
        (["{f}/wav/id0", "{f}/a.txt"], "not laid out as"),
        (["{f}/none.csv", "{f}/a.txt"], "none.csv"),
        (["{f}", "{f}/a.txt", "--targets", "0"], "--targets"),
    ],
)
def test_misuse_is_one_line(corpus, arguments, message):
    result = run(*(argument.format(f=corpus) for argument in arguments), code=2)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (corpus / "a.txt").exists()
