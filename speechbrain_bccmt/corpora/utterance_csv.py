"""The CSV of utterances that training and verification read: SpeechBrain's layout, one row an utterance."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from speechbrain_bccmt.audio.headers import AudioHeader
from speechbrain_bccmt.corpora.layout import AudioFile

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id", "sample_rate")


def format_utterances(
    utterances: Sequence[str],
    files: dict[str, AudioFile],
    headers: dict[str, AudioHeader],
    speakers: dict[str, str],
) -> str:
    """Give the text of the CSV.

    Parameters
    ----------
    utterances : sequence of str
        Ids, in the order of the rows.
    files, headers, speakers : dict
        File, header and speaker of each utterance; others may be there.

    Returns
    -------
    str
        Duration in seconds, start and stop in samples of the file (0 and its length).

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
    described = ((utterance, *headers[utterance]) for utterance in utterances)
    writer.writerows(
        (utterance, f"{frames / rate:.4f}", files[utterance].path, 0, frames, speakers[utterance], rate)
        for utterance, frames, rate in described
    )
    return text.getvalue()
