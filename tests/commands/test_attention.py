"""`bccmt attention`: what it plots and prints for both kinds of models, and what it refuses."""

import json

import matplotlib.image
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.attention import clip_attention
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.attention.test_clip_attention import expected_weights
from tests.tiny_hub_folder import write_hub_folder, write_token_folder
from tests.voices import voice


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "token": write_token_folder(folder / "token"),
        "two": write_token_folder(folder / "two", readout="class+distillation"),
        "mean": write_token_folder(folder / "mean", readout="mean"),
        "phonetic": write_token_folder(folder / "phonetic", phonetic=True),
        "bccmt": write_hub_folder(folder / "bccmt"),
    }


@pytest.fixture
def clips(tmp_path):
    paths = [tmp_path / "wav" / name for name in ("ada/one.wav", "bela/one.wav")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        soundfile.write(path, voice(0.5 + seed / 2, seed), 16000)
    return paths


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Where relative paths lead, so that no plot is left in the working copy."""
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    result = CliRunner().invoke(cli.main, ["attention", "-m", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", ["token", "phonetic", "bccmt"])
def test_a_plot_for_every_kind_of_model(models, clips, tmp_path, name):
    result = run(models[name], *clips, "-o", tmp_path / "picture.png")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert matplotlib.image.imread(tmp_path / "picture.png")[..., :3].std() > 0.05


def test_what_is_plotted_of_which_clip(models, clips, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(clip_attention, "save_figure", lambda figure, path: drawn.append(figure))
    assert run(models["bccmt"], clips[0].parents[1], "--block", 4, "--block", 1, "-o", "x.png").exit_code == 0
    assert run(models["two"], *clips, "--token", "distillation", "-o", "y.png").exit_code == 0
    maps, strips = drawn
    images = [[axes for axes in part.axes if axes.images] for part in maps.subfigs]
    for part, seconds, title in zip(images, (0.5, 1.0), ("ada/one.wav", "bela/one.wav"), strict=True):
        spectrogram, first, second = part[:3]
        assert spectrogram.get_title() == title
        assert first.get_ylabel().startswith("block 4") and second.get_ylabel().startswith("block 1")
        assert first.images[0].get_extent() == [0, seconds, seconds, 0]
        assert spectrogram.images[0].get_extent()[:2] == [0, seconds]
    for part, clip in zip(strips.subfigs, clips, strict=True):
        model = SpeakerVerification.from_hparams(models["two"], run_opts={"device": "cpu"})
        values = [axes.patches[0].get_data().values for axes in part.axes[1:]]
        np.testing.assert_allclose(values, expected_weights(model, clip, "distillation", -1), rtol=1e-3)


def test_weights_as_json(models, clips):
    result = run(models["token"], *clips, "--json", "--block", 1)
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["clip"] for entry in told] == [str(clip) for clip in clips]
    model = SpeakerVerification.from_hparams(models["token"], run_opts={"device": "cpu"})
    for entry, clip, seconds in zip(told, clips, (0.5, 1.0), strict=True):
        (attention,) = entry["attention"]
        assert entry["seconds"] == seconds and attention["block"] == 1 and attention["token"] == "class"
        expected = expected_weights(model, clip, "class", 0)
        np.testing.assert_allclose(attention["weights"], expected, rtol=1e-4)
        np.testing.assert_allclose(attention["on_tokens"], 1 - expected.sum(1), atol=1e-4)
        assert len(expected[0]) * attention["frame_seconds"] == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mean", ["-o", "x.png", "--token", "class"], "has no tokens: its attention maps are plotted"),
        ("token", ["-o", "x.png", "--token", "distillation"], "it has no distillation token, but class"),
        ("token", ["-o", "x.png", "--block", "3"], "there is no block 3, its TokenEmbedder has 2"),
        ("bccmt", ["-o", "x.png", "--token", "class"], "its BCCMT has no tokens"),
        ("bccmt", ["--json"], "--json prints the weights of tokens, and this model has none"),
        ("token", [], "name a plot by -o, or ask for numbers by --json"),
        ("token", ["-o", "x.jpeg"], "x.jpeg: its ending is none of .png, .svg, .pdf"),
        ("token", ["-o", "x.png", "no.wav"], "no.wav: there is no such file"),
        ("token", ["-o", "x.png", *map("{}.wav".format, range(8))], "at most 8 recordings, got 9"),
    ],
)
def test_misuse(models, clips, name, options, message):
    result = run(models[name], clips[0], *options)
    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "rror" in line]) == 1


def test_a_clip_that_is_too_short(models, tmp_path):
    soundfile.write(tmp_path / "short.wav", voice(0.05), 16000)
    result = run(models["token"], tmp_path / "short.wav", "-o", tmp_path / "x.png")
    assert result.exit_code == 2 and "short.wav: 0.05 s is too short" in result.stderr
    assert not (tmp_path / "x.png").exists()
