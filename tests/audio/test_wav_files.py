"""Wav files as pipes, recorders and telephone exchanges write them, and mp3 whose length no header tells."""

import io
import struct

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.audio.crops import read_crop
from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.headers import read_headers
from speechbrain_bccmt.audio.recording import Recording, read_mono
from tests.audio.test_containers import encode, similarity, sweep
from tests.voices import voice

UNKNOWN = [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x80000000, 2_000_000_000, 0xFFFFFFFE, 0xFFFFFFFF]


def chunk(name, content, size=None):
    return (
        name
        + struct.pack("<I", len(content) if size is None else size)
        + content
        + b"\0" * (len(content) % 2)
    )


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def fmt(tag=1, channels=1, rate=16000, bits=16, block=None, per_second=None):
    block = channels * bits // 8 if block is None else block
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, per_second or rate * block, block, bits)
    )


def samples(wave, bits=16):
    """Encode (samples, channels) in [-1, 1) as integers of 16 or 32 bits."""
    return np.round(wave * 2.0 ** (bits - 1)).astype(f"<i{bits // 8}").tobytes()


def waves(channels=1, seconds=1.0, rate=16000):
    return np.stack([voice(seconds, seed, rate) for seed in range(channels)], axis=1)


@pytest.mark.parametrize("size", UNKNOWN)
@pytest.mark.parametrize("riff_size", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize(("channels", "bits", "rate"), [(1, 16, 16000), (2, 16, 44100), (3, 32, 8000)])
def test_a_wav_of_a_pipe_is_read_to_its_end(tmp_path, size, riff_size, channels, bits, rate):
    wave = waves(channels, rate=rate)
    content = riff(
        fmt(channels=channels, rate=rate, bits=bits),
        chunk(b"data", samples(wave, bits), size),
        size=riff_size,
    )
    (tmp_path / "a.wav").write_bytes(content)
    recording = Recording.open(tmp_path / "a.wav")
    assert (recording.frames, recording.sample_rate) == (rate, rate)
    found = read_mono(tmp_path / "a.wav", rate)
    assert np.abs(found - wave.mean(axis=1)).max() < 1e-4
    crop = read_crop(tmp_path / "a.wav", rate, 0, rate, 5000, 700)
    assert np.array_equal(crop, found[5000:5700])


@pytest.mark.parametrize("tag", [3, 6, 7])
@pytest.mark.parametrize("size", [0, 0x7FFFFFFF])
def test_other_samples_of_a_pipe(tmp_path, tag, size):
    """Floats, A-law and mu-law, behind a chunk of notes longer than what is read at once."""
    subtype, bits = {3: ("FLOAT", 32), 6: ("ALAW", 8), 7: ("ULAW", 8)}[tag]
    raw = io.BytesIO()
    soundfile.write(raw, waves(), 16000, format="RAW", subtype=subtype)
    notes = chunk(b"JUNK", b"data" * 1000)
    (tmp_path / "a.wav").write_bytes(
        riff(notes, fmt(tag, bits=bits), notes, chunk(b"data", raw.getvalue(), size))
    )
    assert np.abs(read_mono(tmp_path / "a.wav", 16000) - waves()[:, 0]).max() < 0.02


@pytest.mark.parametrize(
    "between", [b"", chunk(b"LIST", b"abc"), chunk(b"cue ", bytes(28)), chunk(b"data", b"")]
)
@pytest.mark.parametrize("cuts", [[8000], [1], [4001, 8000], [0, 8000], list(range(100, 16000, 100))])
def test_several_data_chunks_are_one_recording(tmp_path, between, cuts):
    wave = waves(2)
    parts = [chunk(b"data", samples(part)) + between for part in np.split(wave, cuts)]
    (tmp_path / "a.wav").write_bytes(riff(fmt(channels=2), *parts))
    assert Recording.open(tmp_path / "a.wav").frames == 16000
    found = read_mono(tmp_path / "a.wav", 16000)
    assert np.abs(found - wave.mean(axis=1)).max() < 1e-4
    assert np.array_equal(read_crop(tmp_path / "a.wav", 16000, 0, 16000, 7900, 300), found[7900:8200])


@pytest.mark.parametrize("promised", [32002, 64000, 10**6, 10**9, 2**31 - 10**5, 2**31 + 1, 3 * 10**9])
def test_a_truncated_wav_is_refused(tmp_path, promised):
    (tmp_path / "a.wav").write_bytes(riff(fmt(), chunk(b"data", samples(waves()), promised)))
    with pytest.raises(ValueError, match=f"a.wav: cannot be read: truncated: {promised} bytes of samples"):
        Recording.open(tmp_path / "a.wav")


def test_a_truncated_second_chunk_is_refused(tmp_path):
    content = riff(fmt(), chunk(b"data", samples(waves())), chunk(b"data", samples(waves())))
    (tmp_path / "a.wav").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match="truncated: 32000 bytes of samples promised, 31000 in the file"):
        Recording.open(tmp_path / "a.wav")


@pytest.mark.parametrize("behind", [b"", chunk(b"LIST", b"INFO")])
def test_a_wav_without_samples_is_refused(tmp_path, behind):
    (tmp_path / "a.wav").write_bytes(riff(fmt(), chunk(b"data", b""), behind))
    with pytest.raises(ValueError, match="a.wav: cannot be read: holds no samples"):
        Recording.open(tmp_path / "a.wav")


CODECS = {"mp3": ("libmp3lame", 16000), "G.722": ("g722", 16000), "G.726": ("g726", 8000)}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", ["true", 0x7FFFFFFF, 0xFFFFFFFF])
def test_compressed_wav(tmp_path, name, size):
    codec, rate = CODECS[name]
    path = encode(tmp_path / "a.wav", sweep(1.5, rate), rate, codec)
    if size != "true":
        content = path.read_bytes()
        place = content.index(b"data") + 4
        path.write_bytes(content[:place] + struct.pack("<I", size) + content[place + 4 :])
    recording = Recording.open(path)
    assert 0 <= recording.frames - 1.5 * rate < 3000
    found = read_mono(path, rate)
    assert similarity(found, sweep(1.5, rate)) > 0.9
    assert np.array_equal(read_crop(path, rate, 0, recording.frames, 9000, 500), found[9000:9500])


@pytest.mark.parametrize("name", CODECS)
def test_a_truncated_compressed_wav_is_refused(tmp_path, name):
    codec, rate = CODECS[name]
    path = encode(tmp_path / "a.wav", sweep(1.5, rate), rate, codec)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match="a.wav: cannot be read: truncated: "):
        Recording.open(path)


def test_an_unknown_codec_is_named(tmp_path):
    content = riff(fmt(0x1234, bits=4, block=24), chunk(b"data", bytes(range(256)) * 20))
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.wav: cannot be read: its codec \(0x1234\) is not supported"):
        Recording.open(tmp_path / "a.wav")


def variable_mp3(path, wave, rate=16000, header=True, mode="VARIABLE"):
    """Write an mp3 file, without the frame that tells its length if asked."""
    soundfile.write(path, wave, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = path.read_bytes()
    assert b"Xing" in content[:200] or b"Info" in content[:200]
    if not header:
        path.write_bytes(content[content.index(content[:2], 4) :])
    return path


def uneven(seconds=4.0):
    """Half of it costs no bits, so that the bit rate of the first frames says nothing of the others."""
    wave = voice(seconds)
    wave[: len(wave) // 2] *= 1e-3
    return wave


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_all_of_an_mp3_is_read(tmp_path, mode, backwards, header):
    wave = uneven()[:: -1 if backwards else 1].copy()
    path = variable_mp3(tmp_path / "a.mp3", wave, header=header, mode=mode)
    recording = Recording.open(path)
    assert 0 <= recording.frames - len(wave) <= (0 if header else 2300)
    found = read_mono(path, 16000)
    assert len(found) == recording.frames and similarity(found, wave) > 0.8
    parts = [read_crop(path, 16000, 0, recording.frames, offset, 7001) for offset in range(0, 70000, 7001)]
    assert np.array_equal(np.concatenate(parts), found)
    chunks = np.concatenate([chunk.wav for chunk in recording.chunks(16000, 0.7)])
    assert np.array_equal(chunks, found)
    headers, unreadable = read_headers([str(path)], progress=False)
    assert headers[0].frames == recording.frames and not unreadable


def test_an_mp3_longer_than_it_tells(tmp_path):
    path = variable_mp3(tmp_path / "a.mp3", uneven(2.0))
    path.write_bytes(path.read_bytes() * 2)
    assert Recording.open(path).frames >= 64000


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_mp3_is_refused_where_it_tells_its_length(tmp_path, share):
    path = variable_mp3(tmp_path / "a.mp3", uneven())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="a.mp3: cannot be read: truncated: "):
        Recording.open(path)


@pytest.mark.parametrize("tags", [(True, False), (False, True), (True, True)])
def test_tags_are_no_sound(tmp_path, tags):
    path = variable_mp3(tmp_path / "a.mp3", uneven(2.0))
    title = b"TIT2" + struct.pack(">I", 5000) + b"\0\0\3" + b"x" * 4999
    size = bytes([(len(title) >> shift) & 127 for shift in (21, 14, 7, 0)])
    before, after = b"ID3\4\0\0" + size + title, b"TAG" + bytes(125)
    path.write_bytes(before * tags[0] + path.read_bytes() + after * tags[1])
    assert Recording.open(path).frames == 32000


def test_folders_show_wav_and_mp3(tmp_path):
    for name in ("a.wav", "b.mp3"):
        (tmp_path / name).touch()
    assert len(find_recordings(tmp_path)) == 2
