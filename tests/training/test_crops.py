"""Crops: position, wrapping, rates, channels, labels, determinism, and how much of a file is read."""

import pickle

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data import DataLoader

from speechbrain_bccmt.audio.crops import read_crop
from speechbrain_bccmt.audio.recording import Recording, read_mono
from speechbrain_bccmt.training.crops import CropReader, TrainingCrops


def write(path, samples, rate=16000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return {"wav": str(path), "start": "0", "stop": str(len(samples)), "sample_rate": str(rate)}


def ramp(n):
    """Return samples that tell their own position, exact in 16 bits."""
    return (np.arange(n) % 30000 / 32768).astype(np.float32)


@pytest.fixture
def rows(tmp_path):
    return {
        f"s{speaker}/{utterance}": write(tmp_path / f"s{speaker}" / f"{utterance}.wav", ramp(20000))
        | {"spk_id": f"s{speaker}"}
        for speaker in range(3)
        for utterance in range(4)
    }


@pytest.mark.parametrize("cache_audio", [False, True])
def test_a_crop_is_a_part_of_the_utterance(tmp_path, cache_audio):
    row = write(tmp_path / "a.wav", ramp(25000))
    read = CropReader(16000, cache_audio)
    starts = []
    for _ in range(30):
        crop = read(row["wav"], 5000, 15000, 4000, 16000) * 32768
        first = int(crop[0].round())
        assert torch.equal(crop.round(), torch.arange(first, first + 4000.0))
        assert 5000 <= first <= 11000
        starts.append(first)
    assert max(starts) - min(starts) > 3000


@pytest.mark.parametrize("cache_audio", [False, True])
def test_short_utterances_are_wrapped(tmp_path, cache_audio):
    row = write(tmp_path / "a.wav", ramp(300))
    crop = CropReader(16000, cache_audio)(row["wav"], 0, 300, 1000, 16000) * 32768
    assert torch.equal(crop.round(), torch.arange(1000.0) % 300)


@pytest.mark.parametrize("cache_audio", [False, True])
def test_without_a_length_utterances_are_whole_and_batches_padded(tmp_path, cache_audio):
    rows = {
        name: write(tmp_path / f"{name}.wav", ramp(length)) | {"spk_id": name}
        for name, length in {"a": 3000, "b": 1500}.items()
    }
    crops = TrainingCrops(rows, tmp_path / "labels.txt", crop_seconds=None, cache_audio=cache_audio)
    crops.set_epoch(1)
    assert torch.equal((crops[0]["sig"] * 32768).round(), torch.arange(3000.0))
    padded = PaddedBatch([crops[0], crops[1]]).sig
    assert padded.data.shape == (2, 3000) and padded.lengths.tolist() == [1.0, 0.5]
    fast = TrainingCrops(rows, tmp_path / "labels.txt", crop_seconds=None, speeds=[100, 200])
    lengths = set()
    for epoch in range(20):
        fast.set_epoch(epoch)
        lengths.add(len(fast[0]["sig"]))
    assert lengths == {3000, 1500}


def test_only_the_crop_is_read(tmp_path, monkeypatch):
    row = write(tmp_path / "long.wav", ramp(160000))
    read = []
    original = soundfile.SoundFile.read

    def spy(self, frames=-1, *args, **kwargs):
        samples = original(self, frames, *args, **kwargs)
        read.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    CropReader(16000)(row["wav"], 0, 160000, 4000, 16000)
    assert read == [4000]


def test_stereo_at_another_rate(tmp_path):
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    row = write(tmp_path / "a.wav", np.stack([tone, 0 * tone], axis=1), 8000)
    crop = CropReader(16000)(row["wav"], 0, 8000, 8000, 8000)
    assert crop.shape == (8000,)
    spectrum = torch.fft.rfft(crop).abs()
    assert abs(int(spectrum.argmax()) * 16000 / 8000 - 440) <= 2
    assert crop[500:-500].abs().max() == pytest.approx(0.25, abs=0.01)  # the mean of both channels


@pytest.mark.parametrize("rate", [44100, 8000, 22050, 48000, 16000, 11025])
@pytest.mark.parametrize("stretch", [(0, 60_000), (7_777, 51_003)])
def test_training_and_inference_read_the_same_samples(tmp_path, rate, stretch):
    """Whole utterances, cached ones, and crops by offset are those of `embed_file`, whatever the file's rate."""
    rng = np.random.default_rng(0)
    row = write(tmp_path / "a.wav", 0.1 * rng.normal(size=(60_000, 2)), rate)
    path, (start, stop) = row["wav"], stretch
    expected = torch.from_numpy(read_mono(path, 16000, start, stop))
    if stretch == (0, 60_000):
        inference = np.concatenate([chunk.wav for chunk in Recording.open(path).chunks(16000)])
        assert np.array_equal(expected, inference)
    assert torch.equal(CropReader(16000)(path, start, stop, None, rate), expected)
    cached = CropReader(16000, cache_audio=True)(path, start, stop, None, rate)
    assert (cached - expected).abs().max() < 1 / 32768
    for offset in (0, 1, 999, len(expected) // 2, len(expected) - 800):
        crop = read_crop(path, 16000, start, stop, offset, 800)
        assert len(crop) == 800 and np.allclose(crop, expected[offset : offset + 800], atol=1e-6)
    torch.manual_seed(0)
    crop = CropReader(16000)(path, start, stop, 4000, rate)
    windows = expected.unfold(0, 4000, 1)
    assert (windows - crop).abs().amax(1).min() < 1e-6


def test_opus_by_offset(tmp_path):
    time = np.arange(48000) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 200 * time) * time)
    row = write(tmp_path / "a.ogg", wave, format="OGG", subtype="OPUS")
    whole = read_mono(row["wav"], 16000)[20000:28000]
    crop = read_crop(row["wav"], 16000, 0, 48000, 20000, 8000)
    assert crop @ whole / np.linalg.norm(crop) / np.linalg.norm(whole) > 0.99


@pytest.mark.parametrize("content", ["missing", "text", "empty", "nan"])
def test_bad_files_are_named(tmp_path, content):
    path = tmp_path / "bad.wav"
    if content == "text":
        path.write_text("this is no audio")
    elif content != "missing":
        samples = (
            np.full(1000, np.nan, dtype=np.float32) if content == "nan" else np.zeros(0, dtype=np.float32)
        )
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="bad.wav"):
        CropReader(16000)(path, 0, 1000, 500, 16000)


def test_epochs_differ_and_repeat(rows, tmp_path):
    def epoch(number, seed=0, order=1, cache_audio=False):
        crops = TrainingCrops(rows, tmp_path / "labels.txt", 0.25, seed=seed, cache_audio=cache_audio)
        crops.set_epoch(number)
        signals = {crops[i]["id"]: crops[i]["sig"] for i in range(len(crops))[::order]}
        return torch.stack([signals[key] for key in sorted(signals)])

    first = epoch(1)
    assert torch.equal(first, epoch(1, order=-1))
    assert torch.allclose(first, epoch(1, cache_audio=True), atol=1e-4)
    assert not torch.equal(first, epoch(2))
    assert not torch.equal(first, epoch(1, seed=1))


def test_drawing_a_crop_leaves_the_generator_alone(rows, tmp_path):
    crops = TrainingCrops(rows, tmp_path / "labels.txt", 0.25)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    crops[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def one_thread():
    """One torch thread, as every data loader worker has: the last bit of a resampled crop depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_workers_give_the_same_crops(rows, tmp_path, one_thread):
    crops = TrainingCrops(rows, tmp_path / "labels.txt", 0.25, speeds=(100, 90), cache_audio=True)
    crops = pickle.loads(pickle.dumps(crops))  # as where workers are not forked
    crops.set_epoch(3)
    alone, shared = (
        torch.cat([batch.sig.data for batch in DataLoader(crops, 5, num_workers=n, collate_fn=PaddedBatch)])
        for n in (0, 2)
    )
    assert torch.equal(alone, shared)


def test_speakers_come_from_the_data(rows, tmp_path):
    crops = TrainingCrops(rows, tmp_path / "save" / "label_encoder.txt", 0.25)
    assert crops.n_classes == 3
    assert (tmp_path / "save" / "label_encoder.txt").is_file()
    labels = {rows[crops[i]["id"]]["spk_id"]: int(crops[i]["spk_id_encoded"]) for i in range(len(crops))}
    assert labels == {"s0": 0, "s1": 1, "s2": 2}


def test_utterances_without_a_speaker_have_no_class(rows, tmp_path):
    rows["s0/0"]["spk_id"] = ""
    crops = TrainingCrops(rows, tmp_path / "labels.txt", crop_seconds=0.5, speeds=(100, 90))
    labels = [int(item["spk_id_encoded"]) for item in crops]
    assert labels[0] == -1 and min(labels[1:]) >= 0 and crops.n_classes == 6


def test_speed_perturbation_makes_new_speakers(rows, tmp_path):
    crops = TrainingCrops(rows, tmp_path / "labels.txt", 0.25, speeds=(100, 90, 110))
    assert crops.n_classes == 9
    seen = set()
    for epoch in range(12):
        crops.set_epoch(epoch)
        for item in (crops[i] for i in range(len(crops))):
            assert item["sig"].shape == (4000,)
            assert int(item["spk_id_encoded"]) % 3 == int(rows[item["id"]]["spk_id"][1:])
            seen.add(int(item["spk_id_encoded"]))
    assert seen == set(range(9))


def test_speed_changes_the_pitch(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 400 * np.arange(32000) / 16000)
    rows = {"a": write(tmp_path / "a.wav", tone) | {"spk_id": "s"}}
    crops = TrainingCrops(rows, tmp_path / "labels.txt", 1.0, speeds=(100, 90, 110))
    pitches = {}
    for epoch in range(20):
        crops.set_epoch(epoch)
        item = crops[0]
        pitches[int(item["spk_id_encoded"])] = int(torch.fft.rfft(item["sig"]).abs().argmax())
    assert pitches == {0: 400, 1: 360, 2: 440}


def test_labels_of_other_data_are_refused(rows, tmp_path):
    TrainingCrops({"a": rows["s0/0"]}, tmp_path / "labels.txt", 0.25)
    with pytest.raises(ValueError, match="s1"):
        TrainingCrops(rows, tmp_path / "labels.txt", 0.25)


def test_real_speech(speech_data):
    path = next((speech_data / "speechocean762" / "wav").rglob("*.opus"))
    info = soundfile.info(path)
    crop = CropReader(16000)(path, 0, info.frames, 16000, info.samplerate)
    assert crop.shape == (16000,) and 0.001 < crop.std() < 0.5
