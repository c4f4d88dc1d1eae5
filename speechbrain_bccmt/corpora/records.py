"""What every preparation writes: the CSV of utterances, the report on unreadable files and the manifest of a run."""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from speechbrain_bccmt.audio.headers import AudioHeader, read_headers
from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.files import temporary_sibling

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id", "sample_rate")


def format_utterances(
    utterances: Sequence[str],
    files: dict[str, AudioFile],
    headers: dict[str, AudioHeader],
    speakers: dict[str, str],
    stretches: Mapping[str, tuple[int, int]] | None = None,
) -> str:
    """Return the text of the CSV that training and verification read, in SpeechBrain's columns.

    Parameters
    ----------
    utterances : sequence of str
        Ids, in the order of the rows.
    files, headers, speakers : dict
        File, header and speaker of each utterance; others may be present.
    stretches : mapping of str to (int, int), optional
        Start and stop of the utterances that are not a whole file.

    Returns
    -------
    str
        Duration in seconds, start and stop in samples of the file.

    Examples
    --------
    >>> file, header = AudioFile("/wav/id1/s/1.wav", 1644, 0), AudioHeader(800, 16000)
    >>> print(format_utterances(["id1/s/1"], {"id1/s/1": file}, {"id1/s/1": header}, {"id1/s/1": "id1"}))
    ID,duration,wav,start,stop,spk_id,sample_rate
    id1/s/1,0.0500,/wav/id1/s/1.wav,0,800,id1,16000
    <BLANKLINE>
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for utterance in utterances:
        frames, rate = headers[utterance]
        start, stop = (stretches or {}).get(utterance, (0, frames))
        seconds = f"{(stop - start) / rate:.4f}"
        writer.writerow(
            (utterance, seconds, files[utterance].path, start, stop, speakers[utterance], rate)
        )
    return text.getvalue()


def read_utterances(
    files: dict[str, AudioFile], failed: dict[str, str], workers: int | None, progress: bool
) -> tuple[dict[str, AudioHeader], dict[str, str]]:
    """Read the headers of utterances, except for files that failed before.

    Parameters
    ----------
    files : dict
        Utterance id to file.
    failed : dict
        Path to reason, for files to skip (m4a that could not be converted).
    workers, progress
        See `read_headers`.

    Returns
    -------
    headers : dict
        Utterance id to header of each readable file, in the order of `files`.
    reasons : dict
        Path of each other file to the reason, sorted by path.
    """
    whole = {utterance: file for utterance, file in files.items() if file.path not in failed}
    paths, sizes = [file.path for file in whole.values()], [file.size for file in whole.values()]
    with collector_paused():
        read, reasons = read_headers(paths, workers, progress, sizes)
    headers = {utterance: header for utterance, header in zip(whole, read, strict=True) if header}
    reasons |= {file.path: failed[file.path] for file in files.values() if file.path in failed}
    return headers, dict(sorted(reasons.items()))


def report_unreadable(
    reasons: dict[str, str],
    files: dict[str, AudioFile],
    tested: Collection[str],
    allowed: float,
    report: Path,
) -> str:
    """Return the report on unreadable files; if they stop the run, write it first.

    Parameters
    ----------
    reasons : dict
        Path of each unreadable file to the reason.
    files : dict
        Utterance id to its file, for all utterances.
    tested : collection of str
        Utterances that a trial list names.
    allowed : float
        Share of the files that may be unreadable.
    report : Path
        Where the report goes.

    Returns
    -------
    str
        One line per file: its path, a tab, the reason.

    Raises
    ------
    ValueError
        If more files are unreadable than allowed, or one named in a trial list is.
    """
    text = "".join(f"{path}\t{reason}\n" for path, reason in reasons.items())
    paths = (files[utterance].path for utterance in tested)
    spoiled = [f"{path} ({reasons[path]})" for path in paths if path in reasons]
    if not spoiled and len(reasons) <= allowed * len(files):
        return text
    with temporary_sibling(report) as temporary:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, report)
    if spoiled:
        raise ValueError(
            f"{len(spoiled)} utterances of the trial lists cannot be read: {'; '.join(spoiled[:3])}. "
            f"Replace the files, or take their trials out of the lists. All unreadable files: {report}"
        )
    raise ValueError(
        f"{len(reasons)} of {len(files)} files cannot be read, more than max_unreadable={allowed:g} allows; "
        f"{report} names each with its reason. Replace the files, or allow a larger share"
    )


def digest_inputs(options: object, lists: Sequence[str | Path], found: Mapping[str, AudioFile]) -> str:
    """Compute a digest of what the files written depend on.

    Parameters
    ----------
    options : object
        Anything the outputs depend on besides files, serialisable as JSON.
    lists : sequence of str or Path
        Files whose contents count.
    found : mapping of str to AudioFile
        Utterance id to its file, of which path, size and time count.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=16)
    for path in lists:
        digest.update(hashlib.blake2b(Path(path).read_bytes()).digest())
    digest.update(
        "\n".join([f"{u}\t{path}\t{size}\t{time}" for u, (path, size, time) in found.items()]).encode()
    )
    return digest.hexdigest()


def earlier_result(manifest: Path, expected: str) -> dict | None:
    """Return the recorded result of an earlier run, if its inputs were the same and its files are untouched.

    Parameters
    ----------
    manifest : Path
        The file that the run wrote last: JSON with `fingerprint`, `sizes` (path to bytes) and `result`.
    expected : str
        Digest of the current inputs, by `digest_inputs`.

    Returns
    -------
    dict or None
        The `result`; None if the files must be rewritten.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        sizes = {path: os.stat(path).st_size for path in content["sizes"]}
        same = content["fingerprint"] == expected and content["sizes"] == sizes
        return dict(content["result"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking all of torch for the sake of many small records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
