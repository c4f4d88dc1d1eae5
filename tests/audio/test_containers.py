"""Voice memos, browser clips, telephone messages and films: what people have and libsndfile cannot read."""

import json
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.audio.containers import ENDINGS, ContainerFile
from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import Recording, read_mono
from tests.voices import voice

# Ending: codec, rate, samples that the codec may add at its ends.
KINDS = {
    ".m4a": ("aac", 44100, 3000),
    ".aac": ("aac", 16000, 3000),
    ".mp4": ("aac", 48000, 3000),
    ".mov": ("aac", 48000, 3000),
    ".webm": ("libopus", 48000, 3000),
    ".mkv": ("pcm_s16le", 16000, 0),
    ".wma": ("wmav2", 44100, 5000),
    ".3gp": ("aac", 16000, 3000),
}


def encode(path, wave, rate, codec, channels=1, film=False):
    """Write a waveform (samples,) by FFmpeg's libraries, beside a moving picture if asked."""
    with av.open(str(path), "w") as container:
        layout = "mono" if channels == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if not codec.startswith("pcm"):
            stream.bit_rate = 64000 * channels
        if film:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            for _ in range(5):
                container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(picture.encode(None))
        fitting = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1024
        )
        samples = np.repeat(wave[None].astype(np.float32), channels, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate = rate
        for part in (*fitting.resample(frame), *fitting.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def sweep(seconds, rate):
    """Return what a lossy codec keeps: a tone that rises from 200 to 2,000 Hz, in syllables."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 + 900 * time / seconds) * time) * (1.1 + np.sin(8 * np.pi * time))


def similarity(found, wave):
    """Return the highest correlation of two signals over all shifts."""
    size = 2 ** int(np.ceil(np.log2(len(found) + len(wave))))
    cross = np.fft.irfft(np.fft.rfft(found, size) * np.fft.rfft(wave, size).conj(), size)
    return cross.max() / np.linalg.norm(found) / np.linalg.norm(wave)


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_it_is_read_whole(tmp_path, ending, channels):
    codec, rate, slack = KINDS[ending]
    wave = sweep(1.5, rate)
    path = encode(tmp_path / f"a{ending}", wave, rate, codec, channels)
    recording = Recording.open(path)
    assert recording.sample_rate == rate and abs(recording.frames - len(wave)) <= slack
    found = read_mono(path, rate)
    assert len(found) == recording.frames and similarity(found, wave) > 0.9
    chunks = list(recording.chunks(rate, 0.4))
    assert len(chunks) >= 4 and np.array_equal(np.concatenate([chunk.wav for chunk in chunks]), found)
    part = next(recording.chunks(rate, 10.0, start=5000, stop=9000)).wav
    assert np.array_equal(part, found[5000:9000])


def test_the_sound_of_a_film(tmp_path):
    wave = sweep(1.0, 48000)
    path = encode(tmp_path / "film.mp4", wave, 48000, "aac", film=True)
    assert similarity(read_mono(path, 48000), wave) > 0.9
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(picture.encode(None))
    with pytest.raises(ValueError, match="silent.mp4: cannot be read: holds no sound"):
        Recording.open(tmp_path / "silent.mp4")


@pytest.mark.parametrize("ending", [".m4a", ".webm"])
def test_what_is_no_audio_is_refused(tmp_path, ending):
    for name, content in {"empty": b"", "text": b"no audio at all" * 100, "zeros": bytes(5000)}.items():
        (tmp_path / f"{name}{ending}").write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}{ending}: cannot be read: ") as caught:
            Recording.open(tmp_path / f"{name}{ending}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_memo_is_refused(tmp_path, share):
    """Whether its table of packets stands at the end, and is lost, or at the beginning."""
    path = encode(tmp_path / "a.m4a", voice(3.0, 0, 16000), 16000, "aac")
    content = path.read_bytes()
    (tmp_path / "lost.m4a").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="lost.m4a: cannot be read: "):
        Recording.open(tmp_path / "lost.m4a")
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.m4a"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "fast.m4a").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    begin = content.index(b"mdat")
    (tmp_path / "cut.m4a").write_bytes(content[: begin + int(share * (len(content) - begin))])
    with pytest.raises(ValueError, match="cut.m4a: cannot be read: "):
        Recording.open(tmp_path / "cut.m4a")


def test_a_long_recording_takes_no_memory(tmp_path):
    path = encode(tmp_path / "long.m4a", np.tile(voice(10.0, 0, 8000), 30), 8000, "aac")
    tracemalloc.start()
    recording = Recording.open(path)
    seconds = sum(chunk.seconds for chunk in recording.chunks(8000, 10.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == pytest.approx(300, abs=0.5) and peak < 4e6  # whole, it has 10 MB


def test_a_memo_is_verified_like_the_wav_that_it_was(tmp_path):
    wave = voice(2.0, 5, 16000)
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    encode(tmp_path / "a.m4a", wave, 16000, "aac")
    result = CliRunner().invoke(
        cli.main, ["verify", str(tmp_path / "a.wav"), str(tmp_path / "a.m4a"), "--json"]
    )
    assert result.exit_code == 0 and json.loads(result.stdout)["score"] > 0.9, result.output


def test_folders_show_them(tmp_path):
    for ending in ENDINGS:
        (tmp_path / f"a{ending.upper()}").touch()
    assert len(find_recordings(tmp_path)) == len(ENDINGS)


def test_reading_ends_where_the_file_does(tmp_path):
    with ContainerFile(encode(tmp_path / "a.mkv", voice(0.5), 16000, "pcm_s16le")) as file:
        assert len(file.read(10**6)) == 8000 and len(file.read(10)) == 0
    with ContainerFile(tmp_path / "a.mkv") as file, pytest.raises(ValueError, match="ends before"):
        file.seek(8001)
