"""Voice activity detection by silero-vad: the one place that decides what is speech."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

import torch

from speechbrain_bccmt.audio import recording
from speechbrain_bccmt.audio.hum import remove_hum
from speechbrain_bccmt.audio.recording import Chunk, equal_parts, resample

# Hz; the detector knows no other of its rates as well.
_RATE = 16000
# Kept before and after speech, and the longest pause within it that does not end it. Shorter ones cost accuracy on
# clean speech, which the models were trained on with its pauses: docs/recordings.md.
PAD_SECONDS, PAUSE_SECONDS = 0.4, 0.8
# Less than this is no speech: a short word has little more.
MIN_SPEECH_SECONDS = 0.1
# The detector hears less below -40 dBFS and above full scale, and front ends have a floor: for both, the loudest 100 ms
# are brought to -20 dBFS.
_LOUDEST, _LEVEL_SECONDS = 0.1, 0.1


def find_speech(wav: torch.Tensor, rate: int) -> list[tuple[int, int]]:
    """Find the speech in a waveform, whatever its level.

    Parameters
    ----------
    wav : torch.Tensor
        (samples,), on the CPU.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    list of (int, int)
        First sample of each stretch of speech, and the one behind its last, in order and apart from each other.

    Examples
    --------
    >>> find_speech(torch.zeros(16000), 16000), find_speech(torch.rand(16000), 16000)
    ([], [])
    """
    heard = resample(wav, rate, _RATE)
    gain = _gain(heard, _RATE)
    if not gain:
        return []
    find, model = _detector()
    found = find(
        heard * gain,
        model,
        sampling_rate=_RATE,
        min_speech_duration_ms=round(1000 * MIN_SPEECH_SECONDS),
        speech_pad_ms=round(1000 * PAD_SECONDS),
        min_silence_duration_ms=round(1000 * PAUSE_SECONDS),
    )
    stretches = ((part["start"] * rate // _RATE, part["end"] * rate // _RATE) for part in found)
    return [(start, min(stop, len(wav))) for start, stop in stretches]


def _gain(wav: torch.Tensor, rate: int) -> float:
    """Return what brings a waveform to the level that is worked at; 0 where it is silent."""
    size = min(len(wav), round(_LEVEL_SECONDS * rate))
    loudest = float(wav[: len(wav) // size * size].reshape(-1, size).std(dim=1, correction=0).max())
    return _LOUDEST / loudest if loudest else 0.0


@lru_cache(maxsize=1)
def _detector() -> tuple[Callable, object]:
    threads = torch.get_num_threads()
    import silero_vad  # leaves PyTorch with one thread

    torch.set_num_threads(threads)
    return silero_vad.get_speech_timestamps_sequence, silero_vad.load_silero_vad(sequence=True)


def keep_speech(chunks: Iterable[Chunk], rate: int) -> Iterator[Chunk]:
    """Join the speech of a recording, without hum, and cut it into chunks anew.

    Parameters
    ----------
    chunks : iterable of Chunk
        Of the recording, one or more.
    rate : int
        Their sample rate in Hz.

    Yields
    ------
    Chunk
        Speech alone, brought to one level, at most `recording.MAX_CHUNK_SECONDS` of it; `seconds` is the length of the
        recording that it comes from, `audible_seconds` that of the speech. Of a recording without any, its first chunk
        as it is, with `audible_seconds` 0. What is held in memory does not grow with the recording.

    Examples
    --------
    >>> chunks = [Chunk.from_waveform(torch.rand(16000), 16000) for _ in range(3)]
    >>> [(chunk.seconds, chunk.audible_seconds) for chunk in keep_speech(chunks, 16000)]
    [(3.0, 0.0)]
    """
    longest = int(recording.MAX_CHUNK_SECONDS * rate)
    speech, first, seconds, clipped, cancelled, hum = torch.zeros(0), None, 0.0, 0.0, False, 0

    def cut(wav: torch.Tensor, share: float) -> Chunk:
        whole = share * seconds
        clipped_share = share * clipped / whole if whole else 0.0
        return Chunk(wav * _gain(wav, rate), whole, len(wav) / rate, clipped_share, cancelled, hum=hum)

    for chunk in chunks:
        first = chunk if first is None else first
        wav, mains = remove_hum(chunk.wav, rate)
        speech, hum = (
            torch.cat([speech, *(wav[slice(*part)] for part in find_speech(wav, rate))]),
            hum or mains,
        )
        seconds, cancelled = seconds + chunk.seconds, cancelled or chunk.cancelled
        clipped += chunk.clipped_share * chunk.seconds
        while len(speech) >= 2 * longest:
            yield cut(speech[:longest], 1.0)
            # A copy, so that what was given away can be freed.
            speech, seconds, clipped, first = speech[longest:].clone(), 0.0, 0.0, chunk
    if len(speech):
        parts = equal_parts(speech, rate)
        yield from (cut(part, 1 / len(parts)) for part in parts)
    elif first is not None:
        yield replace(cut(first.wav, 1.0), wav=first.wav, audible_seconds=0.0)
