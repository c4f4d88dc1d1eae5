"""Length and sample rate of many audio files, from headers that can be trusted, and which files cannot be read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import soundfile

from speechbrain_bccmt.audio.containers import ENDINGS, ContainerFile
from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.audio.riff import HEAD, JoinedWav, WavFile, read_wav

_CHUNK = 256  # files per task: handing over single files costs several times as much as reading their headers
_QUICK = 1e-4  # seconds per file; above this, threads shorten the wait
_OGG_PAGE = 65307  # bytes of the longest Ogg page


class AudioHeader(NamedTuple):
    """What a header says.

    Attributes
    ----------
    frames : int
        Samples per channel.
    sample_rate : int
        In Hz.
    """

    frames: int
    sample_rate: int


def _check_ogg_end(path: str, size: int) -> None:
    """Raise if the file ends in the middle of an Ogg page, as an interrupted copy does."""
    with open(path, "rb") as file:
        file.seek(max(0, size - _OGG_PAGE))
        tail = file.read()
    page = tail.rfind(b"OggS")
    segments = tail[page + 27 : page + 27 + tail[page + 26]] if page >= 0 and page + 26 < len(tail) else b""
    if page < 0 or page + 27 + len(segments) + sum(segments) > len(tail) or not segments:
        raise ValueError("truncated: the file ends in the middle of an Ogg page")


def libsndfile_name(path: str | os.PathLike) -> str | bytes:
    """Return a path in a form that libsndfile opens, even if it is not valid text in the system's encoding."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _read_head(path: str | os.PathLike, size: int | None = None) -> tuple[bytes, int]:
    """Return the first bytes of a file, and its size."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return os.read(descriptor, HEAD), os.fstat(descriptor).st_size if size is None else size
    finally:
        os.close(descriptor)


def open_decoder(
    path: str | os.PathLike | Member, wav: WavFile | None = None
) -> soundfile.SoundFile | ContainerFile:
    """Open a recording with the decoder that reads all of it.

    Parameters
    ----------
    path : str, Path or Member
        The file; a member of a tar file must be one that libsndfile reads.
    wav : WavFile or None
        What is already known about it, if it is a wav file.

    Returns
    -------
    soundfile.SoundFile or ContainerFile
        libsndfile's; or FFmpeg's, for what libsndfile cannot read and for mp3, whose length libsndfile guesses and
        reads no further.

    Raises
    ------
    OSError, ValueError, soundfile.LibsndfileError
        If the file cannot be read.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "a.mp3"
    >>> soundfile.write(path, [0.0] * 800, 16000)
    >>> with open_decoder(path) as file:
    ...     type(file).__name__, len(file.read(10000))
    ('ContainerFile', 800)
    """
    if isinstance(path, Member):
        return soundfile.SoundFile(path.open())
    if os.fspath(path).lower().endswith(ENDINGS):
        return ContainerFile(path)
    wav = wav or read_wav(path, *_read_head(path))
    source = path if wav is None or wav.as_written else JoinedWav(path, wav)
    try:
        file = soundfile.SoundFile(libsndfile_name(path) if source is path else source)
    except soundfile.LibsndfileError:
        if wav is None or wav.block:
            raise
        return ContainerFile(source, "wav", f"{wav.tag:#06x}")
    if file.format != "MP3" and file.subtype != "MPEG_LAYER_III":
        return file
    file.close()
    if wav is None:
        return ContainerFile(path, "mp3")
    if source is not path:
        source.seek(0)
    return ContainerFile(source, "wav")


def _count(file: ContainerFile) -> int:
    """Count samples by decoding them, in constant memory."""
    frames = 0
    while block := len(file.read(2**16)):
        frames += block
    return frames


def read_header(path: str, size: int | None = None) -> AudioHeader:
    """Read length and sample rate of one file; mp3 and what FFmpeg reads are decoded, as their headers may guess.

    Parameters
    ----------
    path : str
        A file of any format that `open_decoder` opens.
    size : int, optional
        Size of the file in bytes, if already known.

    Returns
    -------
    AudioHeader
        Number of frames and sample rate.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is empty, is not audio, holds no samples, or is shorter than its header promises.

    Examples
    --------
    >>> path = str(getfixture("tmp_path") / "a.wav")
    >>> soundfile.write(path, [0.0] * 800, 16000)
    >>> read_header(path)
    AudioHeader(frames=800, sample_rate=16000)
    """
    head, size = _read_head(path, size)
    if not head:
        raise ValueError("empty file")
    wav = read_wav(path, head, size)
    if wav and wav.block and wav.sample_rate and wav.frames:
        return AudioHeader(wav.frames, wav.sample_rate)
    try:
        with open_decoder(path, wav) as file:
            frames = file.frames if isinstance(file, soundfile.SoundFile) else _count(file)
            header = AudioHeader(frames, file.samplerate)
            if getattr(file, "format", "") == "FLAC" and frames:
                file.seek(frames - 1)  # fails if the last block is missing
                file.read(1)
    except soundfile.LibsndfileError as error:
        # For an mp3 without a frame it says that the file does not exist, though it was read above.
        reason = "" if "does not exist" in str(error) else f": {error.error_string or error}"
        raise ValueError(f"not readable as audio, or truncated{reason}") from None
    if header.frames <= 0 or header.sample_rate <= 0:
        raise ValueError("holds no samples")
    if head[:4] == b"OggS":
        _check_ogg_end(path, size)
    return header


def _read_chunk(files: Sequence[tuple[str, int | None]]) -> list[AudioHeader | str]:
    headers = []
    for path, size in files:
        try:
            headers.append(read_header(path, size))
        except (OSError, ValueError, soundfile.SoundFileError) as error:
            headers.append(f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error))
    return headers


def read_headers(
    paths: Sequence[str],
    workers: int | None = None,
    progress: bool = True,
    sizes: Sequence[int] | None = None,
) -> tuple[list[AudioHeader | None], dict[str, str]]:
    """Read the headers of many files in parallel, with a progress bar.

    Parameters
    ----------
    paths : sequence of str
        The files.
    workers : int, optional
        Number of threads, used where reading takes time. Default: four more than there are cores. More help
        with a slow remote disk. Processes were measured to be no faster.
    progress : bool
        Whether to show the progress bar.
    sizes : sequence of int, optional
        Sizes of the files in bytes, if already known.

    Returns
    -------
    headers : list of AudioHeader or None
        In the order of `paths`, None for unreadable files.
    unreadable : dict
        Maps the path of each unreadable file to the reason.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(str(folder / "a.wav"), [0.0] * 800, 16000)
    >>> _ = (folder / "b.wav").write_bytes(b"")
    >>> headers, unreadable = read_headers([str(folder / "a.wav"), str(folder / "b.wav")], progress=False)
    >>> headers, list(unreadable.values())
    ([AudioHeader(frames=800, sample_rate=16000), None], ['empty file'])
    """
    from tqdm import tqdm

    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: at least one is needed")
    files = list(zip(paths, [None] * len(paths) if sizes is None else sizes, strict=True))
    chunks = iter([files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)])
    found: list[AudioHeader | str] = []
    with tqdm(total=len(paths), desc="Reading headers", unit="file", disable=not progress) as bar:
        # Files that the system has cached are read faster one by one than threads can take turns.
        for chunk in chunks:
            start = time.perf_counter()
            found.extend(_read_chunk(chunk))
            bar.update(len(chunk))
            if time.perf_counter() - start > _QUICK * len(chunk):
                break  # waiting for the disk, or decoding: from here on, several at a time
        with ThreadPoolExecutor(workers) as pool:
            for results in pool.map(_read_chunk, chunks):
                found.extend(results)
                bar.update(len(results))
    unreadable = {path: item for path, item in zip(paths, found, strict=True) if isinstance(item, str)}
    return [None if isinstance(item, str) else item for item in found], unreadable
