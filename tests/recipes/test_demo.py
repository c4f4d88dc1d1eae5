"""The demo, from corpus to pictures, with the shortest trainings there are."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from speechbrain_bccmt.demo_corpus.phrases import DemoPhraseSettings
from speechbrain_bccmt.demo_corpus.sentences import DemoCorpusSettings

pytest.importorskip("espeakng_loader", reason="the demo's synthesiser comes with the extra 'demo'")
DEMO = Path(__file__).resolve().parents[2] / "recipes" / "Demo"
PICTURES = ["det.png", "attention_maps.png", "base/training_curves.png"]


def load_script(name):
    """Return the module of a demo's script."""
    sys.path.insert(0, str(DEMO))  # where it finds what lies beside it, as a script does
    try:
        spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(DEMO))


@pytest.fixture(scope="module")
def run_demo():
    return load_script("run_demo")


@pytest.fixture(scope="module")
def finished(run_demo, tmp_path_factory):
    """Return the demo's folder and settings after one run."""
    output = tmp_path_factory.mktemp("demo")
    settings = DemoCorpusSettings(speakers=16, sessions=2, utterances=2)
    # Half of the training speakers are otherwise held out, and a batch would not fill.
    run_demo.TRAINING |= {"dev_speakers": 4, "dev_trials": 40, "batch_size": 4, "valid_interval": 1}
    run_demo.run_demo(output, settings, [1, 1, 1])
    return output, settings


def test_the_table_holds_every_system(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    assert [row["title"] for row in results["systems"]] == [
        "Tiny, shipped",
        "Base (teacher)",
        "Tiny",
        "Tiny + KD",
    ]
    for row in results["systems"]:
        assert 0 <= row["eer"] <= 100 and row["cpu_ms"] > 0
        assert row["title"] in (folder / "results.md").read_text()
    assert [row["epochs"] for row in results["systems"]] == [None, 1, 1, 1]
    assert results["systems"][1]["map_divergence"] is None
    assert results["systems"][2]["map_divergence"] > 0


@pytest.mark.parametrize("name", PICTURES)
def test_it_draws(finished, name):
    assert (finished[0] / name).read_bytes().startswith(b"\x89PNG")


def test_every_picture_of_the_report_exists(finished):
    folder = finished[0]
    places = [part.split(")")[0] for part in (folder / "results.md").read_text().split("](")[1:]]
    assert len(places) == 8
    assert [place for place in places if not (folder / place).is_file()] == []


def test_a_second_run_trains_nothing(run_demo, finished, capsys):
    run_demo.run_demo(*finished, [1, 1, 1])
    assert capsys.readouterr().out.count("already done") == 7


def test_other_settings_do_not_mix_with_a_finished_run(run_demo, finished):
    with pytest.raises(ValueError, match="comes from other settings"):
        run_demo.run_demo(*finished, [2, 1, 1])


def test_a_failing_step_names_its_log(tmp_path):
    steps = load_script("demo_steps")
    with pytest.raises(steps.StepFailed, match="console.txt"):
        steps.run_step("broken", "VoxCeleb", ["no_such_script.py"], tmp_path)


def test_pass_phrases(tmp_path, capsys):
    settings = DemoPhraseSettings(speakers=16, phrases=3, takes=5, trials=80)
    load_script("run_phrase_demo").run_demo(tmp_path, settings, epochs=2)
    told = capsys.readouterr().out
    assert "Both:" in told and "What is said, alone:" in told
    decisions = [line.split("): ")[1] for line in told.splitlines() if line.startswith("  ") and "; voice" in line]
    assert len(decisions) == 3 and all(line.startswith(("accepted", "rejected: ")) for line in decisions)
    assert (tmp_path / "tokens.png").read_bytes().startswith(b"\x89PNG")
