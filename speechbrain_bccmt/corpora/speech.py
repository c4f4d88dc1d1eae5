"""The stretch of each utterance that holds speech, for corpora whose recordings begin or end with something else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from speechbrain_bccmt.audio import speech
from speechbrain_bccmt.audio.headers import AudioHeader
from speechbrain_bccmt.audio.recording import Recording
from speechbrain_bccmt.audio.silero import RATE
from speechbrain_bccmt.corpora.layout import AudioFile


def find_stretches(
    files: Mapping[str, AudioFile],
    headers: Mapping[str, AudioHeader],
    workers: int | None = None,
    progress: bool = True,
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Find where speech begins and ends in each utterance, by voice activity detection.

    Parameters
    ----------
    files, headers : mapping of str
        File and header of each utterance; all those with a header are searched.
    workers : int, optional
        Number of files read at a time. Default: one for each core.
    progress : bool
        Show a progress bar: each file is decoded whole.

    Returns
    -------
    stretches : dict of str to (int, int)
        First sample of the first speech in the file and the one after the last, padding included, for the utterances
        that hold speech.
    reasons : dict of str to str
        Path of each file that cannot be decoded to the reason.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmp_path") / "a.wav")
    >>> soundfile.write(path, np.zeros(8000), 8000)
    >>> find_stretches({"a": AudioFile(path, 0, 0)}, {"a": AudioHeader(8000, 8000)}, progress=False)
    ({}, {})
    """
    reasons: dict[str, str] = {}

    def find(utterance: str) -> tuple[int, int] | None:
        frames, rate = headers[utterance]
        found, begin = [], 0.0
        try:
            for chunk in Recording.open(files[utterance].path).chunks(RATE):
                parts = speech.find_speech(chunk.wav, RATE)
                found += [(begin + start / RATE, begin + stop / RATE) for start, stop in parts]
                begin += chunk.seconds
        except (OSError, ValueError) as error:
            reasons[files[utterance].path] = str(error).removeprefix(f"{files[utterance].path}: ")
            return None
        return (int(found[0][0] * rate), min(frames, round(found[-1][1] * rate))) if found else None

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = pool.map(find, headers)
        shown = tqdm(found, "Finding speech", len(headers), unit="file", disable=not progress)
        stretches = {utterance: stretch for utterance, stretch in zip(headers, shown, strict=True) if stretch}
    return stretches, reasons
