"""Audio as it comes: rates, channels, formats, chunks, and what is refused."""

import os
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly
from torchaudio.functional import resample as torchaudio_resample

from speechbrain_bccmt.audio import recording as audio
from speechbrain_bccmt.audio.crops import read_crop
from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.levels import bandwidth
from speechbrain_bccmt.audio.recording import Recording, audible_seconds, read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.waveforms import mix_down, to_float
from tests.voices import voice


def tone(seconds=1.0, rate=16000, hertz=200.0):
    return 0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def inner_difference(a, b):
    """Return the largest difference except at the ends, where filters reach beyond the recording."""
    n = min(len(a), len(b))
    return float(np.abs(np.asarray(a)[200 : n - 200] - np.asarray(b)[200 : n - 200]).max())


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101, 48000, 96000, 192000])
def test_a_tone_is_one_tone_at_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate=rate), rate, subtype="FLOAT")
    wav = read_mono(tmp_path / "a.wav", 16000)
    assert abs(len(wav) - 16000) <= 1
    assert inner_difference(wav, tone()) < 2e-3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_agrees_with_torchaudio(rate):
    """Compared in the band that both pass: their transition bands below the lower Nyquist rate differ."""
    time = np.arange(rate) / rate
    wav = sum(np.sin(2 * np.pi * hertz * time) for hertz in (90, 450, 1500, 2900)) / 10
    wav = wav.astype(np.float32)
    expected = torchaudio_resample(torch.from_numpy(wav), rate, 16000, lowpass_filter_width=64)
    assert inner_difference(resample(wav, rate, 16000), expected) < 3e-3


@pytest.mark.parametrize("rate", [1000, 8000, 15999, 22050, 44100, 44101, 48000, 192000])
@pytest.mark.parametrize("samples", [1, 100, 7001])
def test_resampling_is_scipys(rate, samples):
    wav = np.random.default_rng(0).normal(0, 0.1, (2, samples)).astype(np.float32)
    factor = np.gcd(rate, 16000)
    expected = resample_poly(wav, 16000 // factor, rate // factor, axis=1)
    found = resample(wav, rate, 16000)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6


def test_channels_are_averaged(tmp_path):
    wav = tone()[:, None] * [1.5, 0.5, 1.0]
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    assert inner_difference(read_mono(tmp_path / "a.wav", 16000), tone()) < 1e-6


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("blocks", [audio._BLOCK_VALUES, 999])
def test_pieces_are_the_whole(tmp_path, monkeypatch, rate, blocks):
    monkeypatch.setattr(audio, "_BLOCK_VALUES", blocks)
    soundfile.write(tmp_path / "a.wav", np.stack([tone(7.3, rate)] * 2, axis=1), rate, subtype="FLOAT")
    recording = Recording.open(tmp_path / "a.wav")
    chunks = list(recording.chunks(16000, 2.0))
    assert len(chunks) == 4
    assert max(chunk.seconds for chunk in chunks) <= 2.0
    assert max(chunk.seconds for chunk in chunks) - min(chunk.seconds for chunk in chunks) < 2 / rate
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(recording.seconds)
    joined = np.concatenate([chunk.wav for chunk in chunks])
    whole = read_mono(tmp_path / "a.wav", 16000)
    assert abs(len(joined) - len(whole)) <= len(chunks)
    if rate == 16000:
        assert np.array_equal(joined, whole)


def test_parts_of_a_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000, subtype="FLOAT")
    assert np.array_equal(
        read_mono(tmp_path / "a.wav", 16000, 100, 300), read_mono(tmp_path / "a.wav", 16000)[100:300]
    )
    for part in [(0, 16001), (500, 500), (-1, 5)]:
        with pytest.raises(ValueError, match="a.wav: has 16000 samples, cannot be read from"):
            read_mono(tmp_path / "a.wav", 16000, *part)


def test_memory_does_not_grow_with_length(tmp_path):
    peaks = []
    for minutes in (2, 8):
        with soundfile.SoundFile(tmp_path / "a.wav", "w", 16000, 1) as file:
            for _ in range(minutes):
                file.write(tone(60.0))
        tracemalloc.start()
        for chunk in Recording.open(tmp_path / "a.wav").chunks(16000, 30.0):
            assert len(chunk.wav) == 480000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_levels(tmp_path):
    rng = np.random.default_rng(0)
    half = np.concatenate([np.zeros(16000), voice(1.0)]).astype(np.float32)
    for level in (1e-4, 1, 1e3):
        assert audible_seconds(level * half, 16000) == pytest.approx(1.0, abs=0.05)
    silences = [np.zeros(16000), np.full(16000, 0.7)]
    silences += [level * rng.normal(0, 1, 16000) for level in (1e-6, 1e-4, 0.1)]
    silences += [np.round(level * rng.normal(0, 1, 16000)) / 32768 for level in (0.3, 1, 3)]
    for silence in silences:
        assert audible_seconds(silence.astype(np.float32), 16000) == 0
    assert audible_seconds(np.ones(1), 16000) == 0


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ALAW", "ULAW"])
@pytest.mark.parametrize("top", [0.25, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("channel", [None, 0, 1])
def test_clipping_is_a_flat_top(tmp_path, subtype, top, channel):
    """At any level, in one channel or both; samples above full scale are not clipped if nothing is lost."""
    if top > 1 and subtype != "FLOAT":
        return
    wav = np.stack([voice(1.0), voice(1.0, 1)], axis=1)
    wav *= top / np.abs(wav).max(axis=0)
    soundfile.write(tmp_path / "whole.wav", wav, 16000, subtype=subtype)
    channels = slice(None) if channel is None else channel
    wav[:, channels] = np.clip(3 * wav[:, channels], -top, top)
    soundfile.write(tmp_path / "clipped.wav", wav, 16000, subtype=subtype)
    shares = [
        next(Recording.open(tmp_path / name).chunks(16000)).clipped_share
        for name in ("whole.wav", "clipped.wav")
    ]
    assert shares[0] <= audio.CLIPPED_SHARE and shares[1] > audio.CLIPPED_SHARE


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_bandwidth(rate):
    noise = np.random.default_rng(0).normal(0, 1, 2 * rate).astype(np.float32)
    assert bandwidth(noise, rate) == rate // 500 * 250
    spectrum = np.fft.rfft(noise)
    for top in (1000, 3400, 7000):
        if top < rate / 2:
            cut = np.fft.irfft(np.where(np.arange(len(spectrum)) / 2 < top, spectrum, 0), len(noise))
            assert top <= bandwidth(cut, rate) <= top + 500
    for short in (np.zeros(rate), noise[:100]):
        assert bandwidth(short, rate) == rate / 2


@pytest.mark.parametrize("scale", [0.3, 1, 3])
def test_noise_of_few_steps_is_not_clipped(tmp_path, scale):
    noise = np.round(scale * np.random.default_rng(0).normal(0, 1, 16000)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    assert next(Recording.open(tmp_path / "a.wav").chunks(16000)).clipped_share == 0


def test_real_speech_is_neither_silent_nor_clipped(speech_data):
    paths = sorted((speech_data / "speechocean762").glob("wav/**/*.*"))
    paths = [path for path in paths if path.suffix in (".wav", ".flac", ".WAV", ".opus", ".ogg")][::40]
    assert paths
    for path in paths:
        (chunk,) = Recording.open(path).chunks(16000)
        assert chunk.audible_seconds > 0.3 * chunk.seconds
        assert chunk.clipped_share <= audio.CLIPPED_SHARE


def test_samples_of_any_kind():
    wav = tone().astype(np.float64)
    for dtype, tolerance in [(np.int16, 1e-4), (np.int32, 1e-6)]:
        samples = np.round(wav * 2.0 ** (np.iinfo(dtype).bits - 1)).astype(dtype)
        assert np.abs(to_float(samples) - wav).max() < tolerance
    assert np.abs(to_float(np.round(wav * 128 + 128).astype(np.uint8)) - wav).max() < 5e-3
    assert to_float(wav).dtype == np.float32
    with pytest.raises(ValueError, match="samples are int64, expected floating point"):
        to_float(np.zeros(3, dtype=np.int64))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(OSError, match="pipe.wav: is no regular file"):
        read_mono(tmp_path / "pipe.wav", 16000)


def test_a_damaged_m4a_is_named(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    with pytest.raises(ValueError, match="a.m4a: cannot be read: "):
        read_mono(tmp_path / "a.m4a", 16000)


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path / "a") + b"\xff.wav")
    with open(path, "wb") as file:
        soundfile.write(file, tone(), 16000, format="WAV")
    assert len(read_mono(path, 16000)) == 16000
    assert find_recordings(tmp_path) == [path]


def test_compressed_wav_has_its_whole_length(tmp_path):
    """The header of GSM files gives 0 bits per sample."""
    soundfile.write(tmp_path / "a.wav", tone(3.0, 8000), 8000, subtype="GSM610")
    recording = Recording.open(tmp_path / "a.wav")
    assert recording.frames == soundfile.info(tmp_path / "a.wav").frames >= 24000
    assert len(read_mono(tmp_path / "a.wav", 16000)) == 2 * recording.frames


def test_samples_padded_to_more_bytes_are_all_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[32:34] = (4).to_bytes(2, "little")  # bytes of a sample of all channels
    (tmp_path / "a.wav").write_bytes(content)
    assert Recording.open(tmp_path / "a.wav").frames == soundfile.info(tmp_path / "a.wav").frames


def test_an_mp3_without_a_frame_is_said_to_be_none(tmp_path):
    (tmp_path / "a.mp3").write_text("no sound " * 100)
    with pytest.raises(ValueError, match="a.mp3: cannot be read: not readable as audio, or truncated$"):
        Recording.open(tmp_path / "a.mp3")


@pytest.mark.parametrize("gain", [-1.0, -0.8])
def test_channels_that_cancel_each_other_are_not_averaged(tmp_path, gain):
    left = voice(1.0, 2).astype(np.float32)
    soundfile.write(tmp_path / "inverted.wav", np.stack([left, gain * left], 1), 16000, "FLOAT")
    (chunk,) = Recording.open(tmp_path / "inverted.wav").chunks(16000)
    assert chunk.cancelled and np.allclose(chunk.wav, left)
    crop = read_crop(tmp_path / "inverted.wav", 16000, 0, 16000, 3000, 800)
    assert np.allclose(crop, left[3000:3800])


@pytest.mark.parametrize("gain", [1.0, 0.0, -0.2])
def test_other_channels_are_averaged(tmp_path, gain):
    """Equal ones, a silent one, and one with a little of the other, inverted."""
    left = voice(1.0, 2).astype(np.float32)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, gain * left], 1), 16000, "FLOAT")
    (chunk,) = Recording.open(tmp_path / "stereo.wav").chunks(16000)
    assert not chunk.cancelled and np.allclose(chunk.wav, (1 + gain) / 2 * left, atol=1e-6)
    two = np.stack([voice(1.0, 2), voice(1.0, 3)], 1).astype(
        np.float32
    )  # two microphones with noises of their own
    assert not mix_down(two)[1]
