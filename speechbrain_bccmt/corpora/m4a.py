"""VoxCeleb2's m4a files to wav or flac, once, through the ffmpeg command.

libsndfile does not read AAC, and decoding it anew at every epoch would cost more than training.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from speechbrain_bccmt.files import temporary_sibling

CODECS = {".wav": ("pcm_s16le", "wav"), ".flac": ("flac", "flac")}


def find_ffmpeg() -> str:
    """Return the path of the ffmpeg command.

    Raises
    ------
    FileNotFoundError
        Where there is none, with the ways out.
    """
    command = shutil.which("ffmpeg")
    if command is None:
        raise FileNotFoundError(
            "m4a files need the ffmpeg command, which is not on the PATH: install it (apt install ffmpeg, "
            "brew install ffmpeg, conda install ffmpeg), or convert the files to wav or flac yourself"
        )
    return command


def _is_done(source: str, converted: str) -> bool:
    """Return whether the converted file is there and no older than its source."""
    try:
        status = os.stat(converted)
    except FileNotFoundError:
        return False
    return status.st_size > 0 and status.st_mtime >= os.stat(source).st_mtime


def _convert(ffmpeg: str, source: str, converted: str, sample_rate: int) -> str | None:
    """Convert one file; return None, or why it cannot be read."""
    codec, container = CODECS[Path(converted).suffix]
    with temporary_sibling(Path(converted)) as temporary:
        command = [ffmpeg, "-nostdin", "-v", "error", "-y", "-i", source, "-map", "0:a:0", "-ac", "1"]
        command += ["-ar", str(sample_rate), "-c:a", codec, "-fflags", "+bitexact", "-f", container]
        # A damaged source is an error, not filled up with silence. One thread each, as files run in parallel.
        command += ["-xerror", "-threads", "1", str(temporary)]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if "No space left on device" in run.stderr:
            raise OSError(errno.ENOSPC, "")
        if run.returncode != 0 or not temporary.is_file() or temporary.stat().st_size == 0:
            return " / ".join(run.stderr.strip().splitlines()[-2:]) or f"ffmpeg ended with {run.returncode}"
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

    Each file is written under a temporary name and renamed, so a run that was killed is resumed by running
    it again.

    Parameters
    ----------
    sources : sequence of str
        Files that ffmpeg reads.
    converted : sequence of str
        The file to write for each, ending in .wav or .flac. Folders are created.
    sample_rate : int
        Of the files written, in Hz. They have one channel.
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
    FileNotFoundError
        Where something is left to convert and there is no ffmpeg command.
    OSError
        Where the disk is full.
    ValueError
        For another ending than .wav or .flac.
    """
    for path in converted:
        if Path(path).suffix not in CODECS:
            raise ValueError(f"cannot convert to {path}: the ending is one of {', '.join(CODECS)}")
    jobs = [pair for pair in zip(sources, converted, strict=True) if not _is_done(*pair)]
    if not jobs:
        return {}
    ffmpeg = find_ffmpeg()
    unreadable = {}
    # Threads that wait for processes. After an error, `map` drops the files that are not begun.
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=len(jobs), desc="Converting m4a", unit="file", disable=not progress) as bar,
    ):
        reasons = pool.map(lambda job: _convert(ffmpeg, *job, sample_rate), jobs)
        for (source, _), reason in zip(jobs, reasons, strict=True):
            if reason is not None:
                unreadable[source] = reason
            bar.update()
    return unreadable
