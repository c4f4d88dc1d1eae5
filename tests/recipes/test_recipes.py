"""Runs every YAML of hparams/ as a user would, on a few seconds of audio."""

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.export.hub import export_hub
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.scoring.plda import PLDA

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    row
    for table in sorted(Path(__file__).parent.glob("*.csv"))
    for row in csv.DictReader(table.open(encoding="utf-8"))
]
TRAINING = [row for row in ROWS if row["Script_file"].endswith("train_speaker_embeddings.py")]
BRAINS = ("distillation_brain", "speaker_brain", "voice_phrase_brain", "recipe")
COMMON = "--device=cpu --noprogressbar --output_folder={output}"
VOXCELEB = "--data_folder={corpus} --verification_file={trials}"
# Tiny crops, two epochs, a few batches each.
TRAINING_FLAGS = "--number_of_epochs=2 --batch_size=4 --crop_seconds=0.5 --dev_speakers=2 --dev_trials=8"


def run_script(script, arguments):
    """Run a script's main in this process; give its exit code."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module.main(arguments)


def run(row, output, extra="", **folders):
    """Run a row's script on its YAML; return the exit code."""
    data = VOXCELEB if row["Dataset"] == "VoxCeleb" else ""
    flags = f"{COMMON} {data} {TRAINING_FLAGS if row in TRAINING else ''} {row['test_debug_flags']} {extra}"
    # SpeechBrain refuses an option that is given twice; the last one counts here.
    flags = {flag.split("=")[0]: flag for flag in flags.format(output=output, **folders).split()}
    return run_script(ROOT / row["Script_file"], [str(ROOT / row["Hparam_file"]), *flags.values()])


def row_of(yaml, dataset=None):
    return next(
        row
        for row in TRAINING
        if row["Hparam_file"] == f"hparams/{yaml}.yaml" and dataset in (None, row["Dataset"])
    )


@pytest.mark.parametrize(
    "row",
    ROWS,
    ids=lambda row: f"{row['Dataset']} {Path(row['Hparam_file']).stem} {row['test_debug_flags'][:40]}",
)
def test_every_experiment_runs(row, corpus, phrase_corpora, models, tmp_path):
    assert run(row, tmp_path, **corpus, **phrase_corpora, **models) == 0
    expected = re.search(r"file_exists=\[(.*)\]", row["test_debug_checks"]).group(1).split(",")
    assert [name for name in expected if not (tmp_path / name).is_file()] == []
    if row in TRAINING:
        log = (tmp_path / "train_log.txt").read_text()
        assert "epoch: 2" in log and "eer" in log and "nan" not in log
        assert ("attention_loss" in log) == ("teacher_source" in row["test_debug_flags"])
        assert ("bank_loss" in log) == ("target_files" in row["test_debug_flags"])
        for name in ("embedding_model", "classifier", "optimizer"):
            assert list(tmp_path.glob(f"save/CKPT+*/{name}.ckpt"))


def test_verification_needs_no_training_speakers_without_cohort(corpus, models, tmp_path, capsys):
    (row,) = (
        row
        for row in ROWS
        if row["Hparam_file"] == "hparams/verification.yaml" and "student" in row["test_debug_flags"]
    )
    for speaker in ("id06", "id07"):  # those of the trial list
        (tmp_path / "wav").mkdir(exist_ok=True)
        (tmp_path / "wav" / speaker).symlink_to(corpus["corpus"] / "wav" / speaker)
    folders = {**models, "trials": corpus["trials"], "corpus": tmp_path}
    assert run(row, tmp_path / "out", "--score_norm=null", **folders) == 0
    assert (tmp_path / "out" / "scores.txt").is_file()
    assert not (tmp_path / "out" / "scores_norm.txt").is_file()
    assert run(row, tmp_path / "out", **folders) == 2
    assert "no training speaker remains" in capsys.readouterr().err


def test_extracted_embeddings_serve_every_scoring_run(corpus, models, tmp_path, monkeypatch):
    def verification(yaml, output, extra):
        row = next(row for row in ROWS if row["Hparam_file"] == f"hparams/{yaml}.yaml")
        return run(
            row, tmp_path / output, f"--embeddings_folder={tmp_path / 'kept'} {extra}", **corpus, **models
        )

    narrow = f"--pretrain_path={models['narrow']}"
    assert verification("extract", "extracted", narrow) == 0
    monkeypatch.setattr("speechbrain_bccmt.inference.embedding.embed_utterances", None)
    assert verification("verification_plda", "plda", "") == 0
    assert verification("verification", "cosine", narrow) == 0
    train, test = (np.load(tmp_path / "extracted" / f"{part}.npz") for part in ("train", "test"))
    assert len(train["ids"]) == 24 and sorted(set(train["speakers"])) == [f"id0{n}" for n in range(6)]
    place = {utterance: place for place, utterance in enumerate(test["ids"])}
    lines = [line.split() for line in (tmp_path / "plda" / "scores.txt").read_text().splitlines()]
    plda = PLDA.fit(train["embeddings"], train["speakers"], lda_dim=4)
    expected = plda.scores(test["embeddings"], *([place[line[side]] for line in lines] for side in (0, 1)))
    assert np.allclose([float(line[3]) for line in lines], expected, rtol=1e-6)
    results = json.loads((tmp_path / "plda" / "results.json").read_text())
    assert results["plda_speakers"] == 6 and results["plda_utterances"] == 24
    cosine = json.loads((tmp_path / "cosine" / "results.json").read_text())
    assert results["scores"]["cosine"] == cosine["scores"]["cosine"] != results["scores"]["PLDA"]


def test_every_yaml_is_listed():
    listed = {row["Hparam_file"] for row in ROWS}
    assert listed == {f"hparams/{path.name}" for path in (ROOT / "hparams").glob("*.yaml")}
    for row in ROWS:
        for column in ("Script_file", "Hparam_file", "Readme_file"):
            assert (ROOT / row[column]).is_file(), row[column]


PAGES = [
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "recipes/*/*/*.md", "recipes/*/*/*.py")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_of_the_docs_name_existing_yamls_and_keys(page):
    text = re.sub(r"\\\n\s*", " ", (ROOT / page).read_text(encoding="utf-8"))
    assert "hparams/common" not in text and "include:common" not in text
    for name, options in re.findall(r"hparams/(\w+)\.yaml([^\n]*)", text):
        yaml = ROOT / "hparams" / f"{name}.yaml"
        assert yaml.is_file(), f"{page} names {name}.yaml"
        unknown = set(re.findall(r"--(\w+)=", options)) - set(
            re.findall(r"^(\w+):", yaml.read_text(), re.MULTILINE)
        )
        assert unknown == set(), f"{page} sets {unknown} of {name}.yaml"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row["Hparam_file"]).stem)
def test_every_key_is_used(row):
    """As SpeechBrain's consistency test: a key is read by the script, or another key refers to it."""
    yaml = (ROOT / row["Hparam_file"]).read_text()
    code = (ROOT / row["Script_file"]).read_text()
    shared = ["evaluation/experiment.py"]
    if row in TRAINING:
        shared = [f"training/{name}.py" for name in BRAINS]
    if row["Dataset"] != "VoxCeleb":
        shared.append("corpora/preparation.py")
    code += "".join((ROOT / "speechbrain_bccmt" / name).read_text() for name in shared)
    unused = [
        key
        for key in re.findall(r"^(\w+):", yaml, re.MULTILINE)
        if f"<{key}>" not in yaml
        and f'"{key}"' not in code
        and f"hparams.{key}" not in code
        and key
        not in ("__set_seed", "ckpt_interval_minutes")  # the second is an option of SpeechBrain's Brain
    ]
    assert unused == []


@pytest.mark.parametrize(
    ("yaml", "extra", "message"),
    [
        ("bccmt", "--data_folder=/no/such/folder", "/no/such/folder"),
        ("bccmt", "--noise_folder=/no/such/noise", "/no/such/noise"),
        ("bccmt", "--no_such_key=1", "no_such_key"),
        ("bccmt", "--speeds=[90,100]", "100"),
        ("bccmt", "--tensorboard=True", "pip install tensorboard"),
        ("bccmt", "--batch_size=1000", "batch_size"),
        ("bccmt", "--lr=fast", "lr is 'fast': it must be a number, as 0.002 is"),
        ("bccmt", "--valid_interval=0", "valid_interval must be greater than 0, got 0"),
        ("bccmt", "--crop_seconds=[]", "crop_seconds must be greater than 0, got []"),
        ("bccmt", "--vad=perhaps", "vad is 'perhaps': it must be True or False, as False is"),
        ("bccmt_tiny_kd", "--teacher_source=/no/such/teacher", "/no/such/teacher"),
        ("bccmt_tiny_kd", "--teacher_source={student}", "do not fit"),
        ("bccmt_tiny_kd", "--kd_blocks=[[0,99]]", "out of range"),
        ("bccmt", "--init_from=/no/such/model", "/no/such/model"),
        ("bccmt", "--init_weight=0.5", "set init_from"),
        ("bccmt", "--init_from=tiny --init_weight=1", "init_weight must be at least 0 and less than 1, got 1"),
        ("token", "--class_of=phrase", "class_of is 'phrase'"),
        ("token", '--corpus_options={{"takes":2}}', "corpus_options: "),
        ("token", "--readout=max", "readout='max' is unknown"),
        ("token RSR2015", "--data_folder=/no/such/folder", "/no/such/folder"),
        ("token RSR2015", "--corpus_options=null", "protocol=drawn"),
        ("token DeepMine", "--data_folder={phrases}", "not laid out as DeepMine"),
        ("bccmt", "--size=huge", "size is 'huge'"),
        ("bccmt_distilled", "--target_files=/no/such/targets.npz", "/no/such/targets.npz"),
        ("bccmt_distilled", "--target_files={targets}", "target_files has none for 90"),
        ("bccmt_distilled", "--target_files={targets_90} --speeds=[100]", "the targets are of other audio"),
        ("bccmt_distilled", "--target_files=[{targets}]", "target_files has 1 files for speeds=[100, 90]"),
        ("bccmt_distilled", "--embedding_size=64", "have size 64, those of the bank 192"),
        ("bccmt", "--front_end=mfcc", "front_end is 'mfcc'"),
        ("bccmt", "--attention=space", "attention"),
        ("token_kd", "--teacher_source=/no/such/teacher", "/no/such/teacher"),
        ("token_kd", "--teacher_source={token}", "no label_encoder.txt"),
        ("token_phonetic", "--phonetic_source=/no/such/network", "/no/such/network"),
        ("token_phonetic", "--phonetic_source={phonetic} --phonetic_size=32", "do not fit"),
    ],
)
def test_user_mistakes_get_one_clear_message(
    yaml, extra, message, corpus, phrase_corpora, models, tmp_path, capsys, monkeypatch
):
    if "tensorboard" in extra:
        monkeypatch.setitem(sys.modules, "tensorboard", None)
        monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    assert run(row_of(*yaml.split()), tmp_path, extra, **corpus, **phrase_corpora, **models) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_a_teacher_of_tokens_learns_alongside_or_was_trained_before(phrase_corpora, tmp_path):
    short = "--number_of_epochs=1"
    assert run(row_of("token_kd"), tmp_path / "alongside", short, **phrase_corpora) == 0
    log = (tmp_path / "alongside/train_log.txt").read_text()
    assert "token_loss" in log and "teacher_loss" in log
    as_teacher = row_of("token", "PhraseCorpus") | {"test_debug_flags": "--data_folder={phrases}"}
    assert run(as_teacher, tmp_path / "teacher", f"{TRAINING_FLAGS} {short}", **phrase_corpora) == 0
    source = f"--teacher_source={tmp_path / 'teacher'} {short}"
    assert run(row_of("token_kd"), tmp_path / "student", source, **phrase_corpora) == 0
    log = (tmp_path / "student/train_log.txt").read_text()
    assert "token_loss" in log and "teacher_loss" not in log


def test_a_phonetic_network_is_kept_as_it_was_given(phrase_corpora, models, tmp_path):
    assert run(row_of("token_phonetic"), tmp_path, "--number_of_epochs=1", **phrase_corpora, **models) == 0
    given = torch.load(models["phonetic"] / "phonetic_model.ckpt")
    (checkpoint,) = tmp_path.glob("save/CKPT+*/embedding_model.ckpt")
    trained = torch.load(checkpoint)
    kept = {name: trained[f"phonetic_model.{name}"] for name in given}
    assert given and all(torch.equal(kept[name], given[name]) for name in given)
    # The output of the training alone is the whole model: no other file, no word of where the network came from.
    model = load_speaker_model(tmp_path)
    assert "phonetic_source" not in str(model.architecture["embedding_model"])
    assert torch.equal(
        model.embedding_model.state_dict()["phonetic_model.bottleneck.w.bias"], given["bottleneck.w.bias"]
    )


def test_a_student_with_phonetic_positions_learns_from_a_teacher_with_them(phrase_corpora, models, tmp_path):
    phonetic = (ROOT / "hparams/token_phonetic.yaml").read_text()
    network = phonetic[phonetic.index("phonetic_model: !new") : phonetic.index("embedding_model: !new")]
    text = (ROOT / "hparams/token_kd.yaml").read_text()
    options = "positions: phonetic\n    phonetic_size: !ref <phonetic_size>\n    phonetic_model: !ref <phonetic_model>"
    assert text.count("    positions: !ref <positions>") == 2  # of student and teacher
    text = text.replace("positions: !ref <positions>", options)
    text += f"phonetic_size: 64\nphonetic_source: !PLACEHOLDER\n{network}"
    (tmp_path / "kd.yaml").write_text(text)
    row = row_of("token_kd") | {"Hparam_file": tmp_path / "kd.yaml"}
    extra = f"{TRAINING_FLAGS} --number_of_epochs=1 --phonetic_source={models['phonetic']}"
    assert run(row, tmp_path / "out", extra, **phrase_corpora) == 0
    log = (tmp_path / "out/train_log.txt").read_text()
    assert "token_loss" in log and "teacher_loss" in log
    given = torch.load(models["phonetic"] / "phonetic_model.ckpt")
    for name, prefix in (("embedding_model", ""), ("teacher", "model.")):
        (checkpoint,) = (tmp_path / "out").glob(f"save/CKPT+*/{name}.ckpt")
        trained = torch.load(checkpoint)
        assert all(torch.equal(trained[f"{prefix}phonetic_model.{key}"], given[key]) for key in given)


def test_every_recipe_shows_what_its_scripts_can_run():
    for folder in sorted((ROOT / "recipes").glob("*/SpeakerRec")):
        shown = {path.name for path in (folder / "hparams").iterdir()}
        run_here = {Path(row["Hparam_file"]).name for row in ROWS if row["Dataset"] == folder.parent.name}
        assert run_here <= shown and all(path.resolve().is_file() for path in (folder / "hparams").iterdir())
        scripts = {path.stem for path in folder.glob("*.py")}
        for name in shown:
            (script,) = {
                Path(row["Script_file"]).stem for row in ROWS if Path(row["Hparam_file"]).name == name
            }
            assert script in scripts, f"{folder}: no script runs {name}"


def test_resuming_another_experiment_is_refused(corpus, models, tmp_path, capsys):
    assert run(row_of("bccmt"), tmp_path, "--number_of_epochs=1", **corpus, **models) == 0
    assert run(row_of("bccmt"), tmp_path, "--speeds=[100]", **corpus, **models) == 2
    assert "another output folder" in capsys.readouterr().err


def test_voice_and_phrase_from_training_to_a_decision(phrase_corpora, tmp_path, capsys):
    """Train, verify the trial list, publish, and ask the command line."""
    assert run(row_of("voice_phrase"), tmp_path / "trained", **phrase_corpora) == 0
    row = next(row for row in ROWS if row["Hparam_file"] == "hparams/verification_phrases.yaml")
    folders = {**phrase_corpora, "token": tmp_path / "trained"}
    assert run(row | {"Dataset": "PhraseCorpus"}, tmp_path / "verified", "--score_norm=null", **folders) == 0
    results = json.loads((tmp_path / "verified" / "results.json").read_text())
    assert set(results["types"]) == {"cosine", "voice", "phrase", "fusion"}
    assert results["n_parameters"] < 350_000
    # The encoder is the shipped one, to the bit.
    state, shipped = (load_speaker_model(name).embedding_model for name in (tmp_path / "trained", "tiny"))
    for name, value in shipped.state_dict().items():
        assert torch.equal(state.encoder.state_dict()[name], value), name
    export_hub(tmp_path / "trained", tmp_path / "hub")
    sides = [phrase_corpora["phrases"] / "wav" / "s0" / "p0" / f"{take}.wav" for take in (0, 1)]
    told = []
    for model, engine in (("trained", "torch"), ("hub", "torch"), ("hub", "onnx")):
        arguments = ["verify", "--phrase", "--no-vad", "--json", "--engine", engine, "-m", str(tmp_path / model)]
        arguments += map(str, sides)
        result = CliRunner().invoke(cli.main, arguments)
        told.append(json.loads(result.stdout))
        assert result.exit_code == (0 if told[-1]["decision"] == "same" else 1)
    assert told[0] == told[1] and re.fullmatch(r"\w+ voice, \w+ phrase", told[0]["reason"])
    # The graph agrees to what the last printed digit may be rounded to.
    assert told[2].keys() == told[0].keys() and told[2]["reason"] == told[0]["reason"]
    numbers = [{key: value for key, value in one.items() if isinstance(value, float)} for one in told]
    assert numbers[2] == pytest.approx(numbers[0], abs=1.1e-6)
    result = CliRunner().invoke(cli.main, ["verify", "--phrase", *map(str, sides)])
    assert result.exit_code == 2 and "it knows voices alone" in result.stderr
    result = CliRunner().invoke(cli.main, ["verify", "--phrase", "--threshold", "0.3", *map(str, sides)])
    assert result.exit_code == 2 and "--threshold" in result.stderr
