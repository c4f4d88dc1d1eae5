"""Convert VoxCeleb2's m4a files to wav or flac, once: decoding AAC in every epoch would cost more than training."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.files import temporary_sibling

FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def _is_done(source: str, converted: str) -> bool:
    """Return whether the converted file is there and no older than its source."""
    try:
        status = os.stat(converted)
    except FileNotFoundError:
        return False
    return status.st_size > 0 and status.st_mtime >= os.stat(source).st_mtime


def _convert(source: str, converted: str, sample_rate: int) -> str | None:
    """Convert one file; return None, or why it cannot be read."""
    try:
        wave = read_mono(source, sample_rate)
    except ValueError as error:
        return str(error).removeprefix(f"{source}: ")
    # libsndfile hides a full disk behind another error.
    content = io.BytesIO()
    soundfile.write(content, wave, sample_rate, "PCM_16", format=FORMATS[Path(converted).suffix])
    with temporary_sibling(Path(converted)) as temporary:
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, converted)
    return None


def convert_m4a(
    sources: Sequence[str],
    converted: Sequence[str],
    sample_rate: int = 16000,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Convert m4a files in parallel; files converted by an earlier run are skipped.

    Each file is written under a temporary name and renamed, so a killed run is resumed by running it again.

    Parameters
    ----------
    sources : sequence of str
        Files that `Recording` reads.
    converted : sequence of str
        The file to write for each, ending in .wav or .flac. Folders are created.
    sample_rate : int
        Rate of the files written, in Hz. They have one channel.
    workers : int, optional
        How many to convert at a time. Default: one per core.
    progress : bool
        Whether to show the progress bar.

    Returns
    -------
    dict
        Path of each source that cannot be read to the reason.

    Raises
    ------
    OSError
        If the disk is full.
    ValueError
        For an extension other than .wav or .flac.
    """
    for path in converted:
        if Path(path).suffix not in FORMATS:
            raise ValueError(f"cannot convert to {path}: the ending is one of {', '.join(FORMATS)}")
    jobs = [pair for pair in zip(sources, converted, strict=True) if not _is_done(*pair)]
    unreadable = {}
    # FFmpeg releases Python's lock while it decodes. After an error, `map` drops the files that were not started.
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=len(jobs), desc="Converting m4a", unit="file", disable=not (progress and jobs)) as bar,
    ):
        reasons = pool.map(lambda job: _convert(*job, sample_rate), jobs)
        for (source, _), reason in zip(jobs, reasons, strict=True):
            if reason is not None:
                unreadable[source] = reason
            bar.update()
    return unreadable
