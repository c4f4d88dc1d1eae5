"""The pretrained interface: what it computes, what it refuses, and what it loads."""

import math
import os
import pickle
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.features import Fbank
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt.audio import recording as audio
from speechbrain_bccmt.inference.embedding import embed_utterances
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.inference.verifier import Verifier
from tests.damaged_folders import DAMAGES, damage
from tests.tiny_hub_folder import SPEAKERS, YAML, write_hub_folder
from tests.voices import CALIBRATION, voice


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "a model", CALIBRATION)


@pytest.fixture(scope="module")
def model(hub_folder):
    return SpeakerVerification.from_hparams(hub_folder, run_opts={"device": "cpu"})


@pytest.fixture
def uncalibrated(tmp_path):
    return SpeakerVerification.from_hparams(write_hub_folder(tmp_path / "plain"), run_opts={"device": "cpu"})


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recording and returns its path."""

    def make(name, wav, rate=16000, subtype="FLOAT"):
        soundfile.write(tmp_path / name, wav, rate, subtype=subtype)
        return str(tmp_path / name)

    return make


def cosine(a, b):
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_it_is_a_speechbrain_interface(model, write):
    assert isinstance(model, SpeakerRecognition)
    path = write("a.wav", voice(1.0))
    probabilities, score, index, label = model.classify_file(path)
    assert label[0] == SPEAKERS[int(index)]
    score, prediction = model.verify_files(path, path)
    assert score.item() == pytest.approx(1) and prediction.item() is True


def test_same_embeddings_as_in_evaluation(model, write):
    lengths = [0.4, 1.01, 2.0, 0.73]
    paths = [write(f"{i}.wav", voice(seconds, i)) for i, seconds in enumerate(lengths)]
    rows = [{"ID": path, "wav": path, "duration": "1"} for path in paths]
    parts = [model.mods[name] for name in model.MODULES_NEEDED]
    _, expected = embed_utterances(rows, *parts, progress=False)
    assert np.allclose(model.embed(paths, vad=False), expected, atol=1e-5)
    assert np.allclose(model.embed(paths[1], vad=False), expected[1], atol=1e-5)


@pytest.mark.parametrize("front_end", ["kaldi", "speechbrain"])
def test_batch_with_lengths_equals_one_by_one(model, front_end):
    if front_end == "speechbrain":
        parts = {name: model.mods[name] for name in model.MODULES_NEEDED} | {
            "compute_features": Fbank(n_mels=80)
        }
        model = SpeakerVerification(modules=parts, hparams={}, run_opts={"device": "cpu"})
    seconds = [0.1, 0.437, 1.0, 2.2, 1.713]
    wavs = [torch.from_numpy(voice(length, seed)).float() for seed, length in enumerate(seconds)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    padded[padded == 0] = 0.3  # whatever stands behind the end
    lengths = torch.tensor([len(wav) / padded.shape[1] for wav in wavs])
    together = model.encode_batch(padded, lengths)
    assert together.shape == (5, 1, 16)
    for row, wav in zip(together, wavs, strict=True):
        alone = model.encode_batch(wav)
        assert torch.allclose(row, alone[0], atol=1e-4)
        assert cosine(row[0], alone[0, 0]) > 0.99999
    assert torch.equal(model.embed(padded, lengths), together.squeeze(1))
    outcome = model.verify_batch(padded, padded.flip(0), lengths, lengths.flip(0), threshold=0.3)
    score, decision = outcome
    assert (
        score.shape == decision.shape == outcome.probability.shape == (5, 1) and decision.dtype == torch.bool
    )
    expected = [cosine(together[i, 0], together[4 - i, 0]) for i in range(5)]
    assert np.allclose(score.squeeze(1), expected, atol=1e-5)
    assert torch.equal(decision, score >= 0.3)


def test_gradients_reach_the_waveform(hub_folder):
    """As with SpeechBrain's own interface."""
    model = SpeakerVerification.from_hparams(hub_folder, run_opts={"device": "cpu"}, freeze_params=False)
    wavs = torch.randn(2, 16000, requires_grad=True)
    model.eval().encode_batch(wavs, torch.tensor([1.0, 0.5])).square().sum().backward()
    assert wavs.grad[0].abs().sum() > 0 and wavs.grad[1, :8000].abs().sum() > 0
    assert not wavs.grad[1, 8000:].any()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_and_channel_count(model, write, rate):
    """The same sound, which 8 kHz can hold: only the resampling differs."""
    time = np.arange(2 * rate) / rate
    wav = sum(np.sin(2 * np.pi * hertz * time + hertz) for hertz in range(60, 3300, 37)) / 200
    wav *= 1 + 0.5 * np.sin(2 * np.pi * 3 * time)
    reference_time = np.arange(32000) / 16000
    reference = sum(np.sin(2 * np.pi * hertz * reference_time + hertz) for hertz in range(60, 3300, 37)) / 200
    reference *= 1 + 0.5 * np.sin(2 * np.pi * 3 * reference_time)
    here = model.embed_file(write("a.wav", wav, rate))
    there = model.embed_file(write("b.wav", np.stack([reference * 1.2, reference * 0.8], axis=1), 16000))
    assert cosine(here.embedding, there.embedding) > 0.99
    assert here.seconds == there.seconds == 2.0
    given = model.embed(wav, sample_rate=rate)
    assert cosine(given, here.embedding) > 0.99999


def test_waveforms_of_any_kind(model):
    wav = voice(1.0)
    expected = model.embed(wav)
    assert expected.shape == (16,)
    assert torch.allclose(model.embed(torch.from_numpy(wav)), expected)
    assert torch.allclose(model.embed(wav[None])[0], expected)
    stereo = np.stack([1.5 * wav, 0.5 * wav], axis=1)
    assert torch.allclose(model.embed(stereo[None])[0], expected, atol=1e-5)
    assert cosine(model.embed((wav * 32767).astype(np.int16)), expected) > 0.999


def test_score_is_the_cosine_and_probability_the_calibrations(model, write):
    a, b = write("a.wav", voice(1.0, 1)), write("b.wav", voice(1.5, 2))
    outcome = model.verify_files(a, b)
    assert outcome.score == pytest.approx(cosine(model.embed(a), model.embed(b)), abs=1e-6)
    assert outcome.llr == pytest.approx(20 * outcome.score - 6)
    assert outcome.probability == pytest.approx(1 / (1 + math.exp(-outcome.llr)))
    assert outcome.threshold == pytest.approx(0.3) == model.threshold
    assert outcome.decision == (outcome.score >= 0.3)
    assert [utterance.seconds for utterance in outcome.utterances] == [1.0, 1.5]
    score = float(outcome.score)
    assert model.verify_files(a, b, threshold=score).decision
    assert not model.verify_files(a, b, threshold=np.nextafter(score, 2)).decision
    assert tuple(outcome) == (outcome[0], outcome[1]) and len(outcome) == 2


def test_several_utterances_on_a_side(model, write):
    paths = [write(f"{i}.wav", voice(0.5 + i / 4, i) * (i + 1) / 4) for i in range(4)]
    vectors = model.embed(paths).double()
    vectors /= vectors.norm(dim=1, keepdim=True)
    expected = cosine(vectors[:3].mean(0), vectors[3])
    assert model.verify_files(paths[:3], paths[3]).score == pytest.approx(expected, abs=1e-6)
    assert model.verify_files(paths[3:], paths[:3]).score == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="a side of the verification has no recording"):
        model.verify_files([], paths[0])


def test_no_threshold_is_made_up(uncalibrated, write):
    a = write("a.wav", voice(1.0))
    assert uncalibrated.threshold is None
    wavs = torch.rand(1, 16000)
    for call in (lambda: uncalibrated.verify_files(a, a), lambda: uncalibrated.verify_batch(wavs, wavs)):
        with pytest.raises(ValueError, match="ships no calibration.json, .*give one"):
            call()
    outcome = uncalibrated.verify_files(a, a, threshold=0.5)
    assert outcome.decision and math.isnan(outcome.probability) and math.isnan(outcome.llr)
    assert uncalibrated.verify_batch(wavs, wavs, threshold=0.5).probability.isnan().all()
    with pytest.raises(ValueError, match="threshold is nan, expected a finite number"):
        uncalibrated.verify_files(a, a, threshold=math.nan)


def test_shortest_length(model, write):
    assert model.min_seconds == 0.1
    model.embed_file(write("long.wav", voice(0.1)))
    with pytest.raises(
        ValueError, match=r"short.wav: 0.09994 s is too short, this model takes 0.1 s or more"
    ):
        model.embed_file(write("short.wav", voice(0.1)[:-1]))
    model.embed(voice(0.1, rate=48000), sample_rate=48000)
    with pytest.raises(ValueError, match="0.05 s is too short"):
        model.embed(voice(0.1), sample_rate=32000)
    with pytest.raises(ValueError, match="0.05 s is too short"):
        model.encode_batch(torch.rand(2, 16000), torch.tensor([1.0, 0.05]))


def test_shortest_length_of_the_yaml(tmp_path, write):
    folder = write_hub_folder(tmp_path / "hub")
    (folder / "hyperparams.yaml").write_text(YAML + "min_seconds: 0.5\n")
    model = SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    with pytest.raises(ValueError, match="0.4 s is too short, this model takes 0.5 s or more"):
        model.embed_file(write("a.wav", voice(0.4)))


def test_silence_is_nobody(model, write):
    silent = write("silent.wav", np.zeros(16000))
    offset = write("offset.wav", np.full(16000, 0.25))
    outcome = model.verify_files(silent, offset)
    assert not outcome.decision
    assert [text.split(": ")[1] for text in outcome.warnings] == ["no speech in its 1 s"] * 2
    loud = write("loud.wav", voice(1.0))
    assert not model.verify_files(silent, loud, threshold=-1).decision
    assert model.verify_files([silent, loud], loud, threshold=-1).decision
    wavs = torch.stack([torch.zeros(16000), torch.from_numpy(voice(1.0)).float()])
    assert model.verify_batch(wavs, wavs).decision.squeeze(1).tolist() == [False, True]


@pytest.mark.parametrize("decibels", [-80, -50, -20, 0])
def test_no_level_is_silence(model, write, decibels):
    """Peak at -50 dBFS in 24 bits: the same speaker, and no warning."""
    wav = voice(2.0) / np.abs(voice(2.0)).max()
    quiet = write("quiet.wav", 0.98 * 10 ** (decibels / 20) * wav, subtype="PCM_24")
    outcome = model.verify_files(quiet, write("a.wav", wav / 2, subtype="PCM_24"), threshold=0.9)
    assert outcome.decision and not outcome.warnings


@pytest.mark.parametrize("decibels", [0, 6, 40])
def test_samples_over_full_scale_are_not_clipped(model, write, decibels):
    wav = 10 ** (decibels / 20) * voice(2.0) / np.abs(voice(2.0)).max()
    assert not model.embed_file(write("loud.wav", wav, subtype="FLOAT")).warnings


@pytest.mark.parametrize("decibels", [-100, -60, -20])
def test_steady_noise_is_nobody(model, write, decibels):
    noise = 10 ** (decibels / 20) * np.random.default_rng(0).normal(0, 1, 32000)
    path = write("noise.wav", noise, subtype="PCM_24")
    outcome = model.verify_files(path, path, threshold=-1, vad=False)
    assert not outcome.decision and "noise.wav: silent, " in outcome.warnings[0]
    outcome = model.verify_files(path, path, threshold=-1)
    assert not outcome.decision and "noise.wav: no speech in its 2 s" in outcome.warnings[0]


def test_clipping_is_told(model, write):
    wav = np.clip(10 * voice(1.0), -1, 1)
    outcome = model.verify_files(write("a.wav", wav, subtype="PCM_16"), write("b.wav", voice(1.0) / 10))
    (text,) = outcome.warnings
    assert "a.wav: clipped, " in text and text.endswith(" % of its samples lie in flat tops")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_samples_that_are_no_numbers(model, write, value):
    wav = voice(1.0)
    wav[5000] = value
    with pytest.raises(ValueError, match="bad.wav: holds NaN or infinite samples"):
        model.embed_file(write("bad.wav", wav))
    with pytest.raises(ValueError, match="waveforms hold NaN or infinite samples"):
        model.embed(wav)
    wavs = torch.from_numpy(np.stack([voice(1.0), wav]))
    model.encode_batch(wavs, torch.tensor([1.0, 0.25]))  # behind the end
    with pytest.raises(ValueError, match="waveforms hold NaN or infinite samples"):
        model.encode_batch(wavs)


@pytest.mark.parametrize("lengths", [[0.5], [0.0, 1.0], [1.0, 1.1], [1.0, math.nan]])
def test_lengths_out_of_range(model, lengths):
    with pytest.raises(ValueError, match="expected 2 relative ones, above 0 and up to 1"):
        model.encode_batch(torch.rand(2, 16000), torch.tensor(lengths))


@pytest.mark.parametrize("shape", [(0, 16000), (2, 2, 2, 2), ()])
def test_shapes_that_are_no_waveforms(model, shape):
    with pytest.raises(ValueError, match="waveforms have shape"):
        model.encode_batch(torch.rand(shape))


def test_long_recordings_go_piece_by_piece(model, write, monkeypatch):
    monkeypatch.setattr(audio, "MAX_CHUNK_SECONDS", 2.0)
    parts = [voice(2.0, seed) for seed in range(3)]
    expected = np.mean([model.embed(part).numpy() for part in parts], axis=0)
    wav = np.concatenate(parts)
    utterance = model.embed_file(write("a.wav", wav))
    assert np.allclose(utterance.embedding, expected, atol=1e-5)
    assert np.allclose(model.embed(wav), expected, atol=1e-5)
    assert np.allclose(model.embed(np.stack([wav, wav]))[1], expected, atol=1e-5)
    # Whichever way in: SpeechBrain's, also beside a short one in a batch, and the evaluation's.
    lengths = torch.tensor([1.0, 1 / 3])
    both = model.encode_batch(torch.from_numpy(np.stack([wav, wav])), lengths)[:, 0]
    assert np.allclose(both[0], expected, atol=1e-5)
    assert np.allclose(both[1], model.embed(parts[0]), atol=1e-5)
    rows = [{"ID": "a", "wav": utterance.path, "duration": "6.0"}]
    assert np.allclose(embed_utterances(rows, **model._parts(), progress=False)[1], expected, atol=1e-5)
    assert utterance.seconds == 6.0
    # A pause as long as a chunk has no embedding to be averaged.
    paused = np.concatenate([parts[0], np.zeros(32000), parts[1]])
    expected = np.mean([model.embed(part).numpy() for part in parts[:2]], axis=0)
    utterance = model.embed_file(write("b.wav", paused))
    assert np.allclose(utterance.embedding, expected, atol=1e-5)
    assert utterance.speech_seconds == pytest.approx(4.0, abs=0.1) and not utterance.warnings
    assert model.embed_file(write("c.wav", np.zeros(96000))).speech_seconds == 0


def test_memory_does_not_grow_with_length(model, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MAX_CHUNK_SECONDS", 10.0)
    peaks = []
    for chunks in (3, 10):
        soundfile.write(tmp_path / "a.wav", np.tile(voice(10.0), chunks), 16000)
        tracemalloc.start()
        model.embed_file(tmp_path / "a.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def forget_peak():
    """Count the peak memory of this process from now on."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_megabytes():
    """Return the peak memory of this process, PyTorch's and the decoder's with it, which tracemalloc does not see."""
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="peaks of a process are told by Linux alone"
)
@pytest.mark.parametrize(("rate", "channels", "many"), [(16000, 1, 25), (44100, 2, 6)])
def test_many_minutes_take_the_memory_of_two(model, tmp_path, rate, channels, many):
    minute = np.repeat(voice(60.0, rate=rate).astype(np.float32)[:, None], channels, axis=1)
    peaks = []
    for minutes in (2, 2, many):  # the first one fills pools of memory that are kept
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        forget_peak()
        assert model.embed_file(path).seconds == 60 * minutes
        peaks.append(peak_megabytes())
    # Kept samples alone would be 90 MB at 16 kHz; one read of two channels at 44.1 kHz 80 MB.
    assert peaks[2] < max(peaks[:2]) + 40, peaks


def test_averaging_pieces_is_near_the_whole_on_real_speech(speech_data, model, monkeypatch):
    path = max((speech_data / "speechocean762").glob("wav/**/*1.*"), key=lambda path: path.stat().st_size)
    whole = model.embed_file(path)
    monkeypatch.setattr(audio, "MAX_CHUNK_SECONDS", whole.seconds / 2 + 0.01)
    assert cosine(model.embed_file(path).embedding, whole.embedding) > 0.9


# Loading


def test_label_encoder_is_filled_or_missed(hub_folder, model, tmp_path):
    assert [model.hparams.label_encoder.decode_ndim(index) for index in range(3)] == SPEAKERS
    folder = write_hub_folder(tmp_path / "hub")
    (folder / "label_encoder.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no label_encoder.txt .*hub"):
        SpeakerVerification.from_hparams(folder)
    (folder / "label_encoder.txt").write_text("nonsense")
    with pytest.raises(ValueError, match="label_encoder.txt is no label encoder"):
        SpeakerVerification.from_hparams(folder)
    (folder / "label_encoder.txt").write_text("")
    with pytest.raises(ValueError, match="label_encoder.txt"):
        SpeakerVerification.from_hparams(folder)


def test_label_encoder_under_speechbrains_name(tmp_path):
    folder = write_hub_folder(tmp_path / "hub")
    (folder / "label_encoder.txt").rename(folder / "label_encoder.ckpt")
    assert len(SpeakerVerification.from_hparams(folder).hparams.label_encoder) == 3


def test_relative_path_and_overrides(hub_folder, monkeypatch):
    monkeypatch.chdir(hub_folder.parent)
    options = {"run_opts": {"device": "cpu"}, "overrides": {"sample_rate": 8000}}
    assert SpeakerVerification.from_hparams("a model", **options).sample_rate == 8000


def test_output_folder_of_a_training(tmp_path, hub_folder, model):
    """A training's YAML has seeds, checkpointers and loggers, of which nothing may be built."""
    text = YAML[: YAML.index("classifier:")]
    text += f"""\
__set_seed: !apply:speechbrain.utils.seed_everything [1]
train_logger: !new:speechbrain.utils.train_logger.FileTrainLogger
    save_file: {tmp_path / "built"}
"""
    (tmp_path / "hyperparams.yaml").write_text(text)
    encoder = model.mods.embedding_model
    Checkpointer(tmp_path / "save", {"embedding_model": encoder}).save_checkpoint(meta={"eer": 0.1})
    CALIBRATION.save(tmp_path / "calibration.json")
    torch.manual_seed(1)
    seeded = torch.random.get_rng_state()
    torch.manual_seed(5)
    trained = SpeakerVerification.from_hparams(tmp_path, run_opts={"device": "cpu"})
    assert torch.equal(trained.embed(voice(1.0)), model.embed(voice(1.0)))
    assert trained.threshold == model.threshold
    assert not (tmp_path / "built").exists()
    assert not torch.equal(torch.random.get_rng_state(), seeded)


class RunsCode:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["embedding_model", "classifier"])
@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
@pytest.mark.parametrize("environment", ["", "1"])
def test_checkpoint_that_would_run_code(tmp_path, monkeypatch, name, save, environment):
    if environment:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", environment)
    folder, marker = write_hub_folder(tmp_path / "hub"), tmp_path / "marker"
    save({"weight": RunsCode(marker)}, folder / f"{name}.ckpt")
    with pytest.raises(ValueError, match=f"{name}.ckpt' cannot be loaded: .*would run code"):
        SpeakerVerification.from_hparams(folder)
    assert not marker.exists()


@pytest.mark.parametrize("line", ["a: !applyref:os.mkdir [{}]", "mean_var_norm: !apply:os.mkdir [{}]"])
def test_yaml_that_would_run_code(tmp_path, line):
    marker = tmp_path / "marker"
    text = YAML[: YAML.index("classifier:")].replace(
        "mean_var_norm:", "b:" if "norm" in line else "mean_var_norm:"
    )
    (tmp_path / "hyperparams.yaml").write_text(text + line.format(marker) + "\n")
    with pytest.raises(ValueError, match="hyperparams.yaml .*(applyref|os.mkdir)"):
        SpeakerVerification.from_hparams(tmp_path)
    assert not marker.exists()


def test_nothing_beside_the_model_is_built(tmp_path, model):
    folder, marker = write_hub_folder(tmp_path / "hub"), tmp_path / "marker"
    (folder / "hyperparams.yaml").write_text(YAML + f"x: !apply:os.mkdir [{marker}]\n")
    loaded = SpeakerVerification.from_hparams(folder, trust_code=True, run_opts={"device": "cpu"})
    assert torch.equal(loaded.embed(voice(1.0)), model.embed(voice(1.0))) and not marker.exists()


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_model(tmp_path, what):
    folder = write_hub_folder(tmp_path / "hub")
    named = damage(folder, what)
    with pytest.raises((ValueError, OSError), match=named):
        SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.mark.parametrize("source", ["", "/no/such/folder", "no/such/folder", "nothing"])
def test_no_model(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model"):
        SpeakerVerification.from_hparams(source)


def test_hub_id_without_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hyperparams.yaml could not be fetched"):
        SpeakerVerification.from_hparams("no-such-owner/no-such-model")


def test_hub_id_from_a_cache(hub_folder, model, tmp_path, monkeypatch):
    """Whole chain offline, with the files where huggingface_hub keeps them."""
    repository = tmp_path / "models--owner--voices"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(hub_folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    from_hub = SpeakerVerification.from_hparams("owner/voices", run_opts={"device": "cpu"})
    assert torch.equal(from_hub.embed(voice(1.0)), model.embed(voice(1.0)))
    assert from_hub.threshold == model.threshold and len(from_hub.hparams.label_encoder) == 3


@pytest.mark.parametrize("code", [False, True])
def test_statistics_are_read_as_safely_as_parameters(tmp_path, monkeypatch, code):
    """A normalisation reads its file by a hook of its own, which an environment variable can make run code."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, marker = write_hub_folder(tmp_path / "hub"), tmp_path / "marker"
    text = YAML.replace("norm_type: sentence", "norm_type: global")
    text = text.replace("    loadables:\n", "    loadables:\n        mean_var_norm: !ref <mean_var_norm>\n")
    (folder / "hyperparams.yaml").write_text(text)
    content = b"cos\nmkdir\n(S'" + str(marker).encode() + b"'\ntR." if code else b"PK\x03\x04 cut off"
    (folder / "mean_var_norm.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="mean_var_norm.ckpt' cannot be loaded"):
        SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    assert not marker.exists()


@pytest.mark.parametrize("rate", [0, -8000, 44100.5])
def test_impossible_sample_rates_are_told(model, rate):
    with pytest.raises(ValueError, match=f"sample_rate is {rate} Hz"):
        model.embed(torch.randn(16000), sample_rate=rate)


def test_sides_that_are_no_pairs(model):
    with pytest.raises(ValueError, match="3 waveforms on one side and 2"):
        model.verify_batch(torch.randn(3, 8000), torch.randn(2, 8000))


def test_silence_has_no_probability(model, write):
    silent, spoken = write("silent.wav", np.zeros(16000)), write("a.wav", voice(1.0))
    for pair in ((silent, silent), (silent, spoken)):
        outcome = model.verify_files(*pair)
        assert not outcome.decision and math.isnan(outcome.probability) and math.isnan(outcome.llr)
    wavs = torch.stack([torch.zeros(16000), torch.from_numpy(voice(1.0)).float()])
    outcome = model.verify_batch(wavs, wavs)
    assert (
        outcome.probability.isnan().flatten().tolist()
        == [True, False]
        == outcome.llr.isnan().flatten().tolist()
    )


def test_much_silence_is_told(model, write):
    little = np.concatenate([np.zeros(8 * 16000), voice(1.0)])
    (warning,) = model.embed_file(write("little.wav", little), vad=False).warnings
    assert "little.wav: mostly silent, " in warning and "of 9 s are audible" in warning
    assert not model.embed_file(write("half.wav", little[7 * 16000 :])).warnings


def test_the_calibration_is_asked_for_all_speech_and_utterances_of_a_side():
    asked = []

    class Calibrated(Verifier):
        calibration = SimpleNamespace(at=lambda *sides: asked.append(sides) or CALIBRATION)

    one, two = (
        EmbeddedUtterance(f"{n}.wav", np.ones(2, np.float32), 9.0, float(n), bandwidth=band)
        for n, band in ((1, 8000), (2, 3500))
    )
    Calibrated().verify_utterances([one, two], [two])
    expected = [
        {"log_duration": math.log(3), "log_utterances": math.log(2), "narrow": 0.5},
        {"log_duration": math.log(2), "log_utterances": 0.0, "narrow": 1.0},
    ]
    assert asked[-1] == tuple(pytest.approx(side) for side in expected)
