"""Open-set identification: an enrolled speaker or nobody, decided by score and margin for the number of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.voiceprints.records import Identification
from speechbrain_bccmt.voiceprints.store import Voiceprints


def identify_open_set(
    prints: Voiceprints,
    embedding,
    probe: Mapping[str, float] | None,
    calibration,
    open_set: OpenSet,
    error: float = 0.01,
    n_best: int = 5,
) -> Identification:
    """Identify the speaker of one recording, or nobody where the score or the margin to the next name is too low.

    Parameters
    ----------
    prints : Voiceprints
        Who is enrolled.
    embedding : array_like
        Of the recording, (D,).
    probe : mapping of str to float or None
        Its `side_quality`; None: it has no speech, and belongs to nobody.
    calibration : Calibration or QualityFusion
        The model's; ratios allow for the speech on either side.
    open_set : OpenSet
        The ratio that the best name must reach among that many names.
    error : float
        Share of strangers that may be given a name.
    n_best : int
        How many candidates to return.

    Returns
    -------
    Identification
        With `threshold` as a cosine, for the best candidate.

    Raises
    ------
    OSError, ValueError
        As for `Voiceprints.identify`, or if the error rate is out of range.

    Examples
    --------
    >>> from speechbrain_bccmt.scoring.calibration import Calibration
    >>> prints = Voiceprints(getfixture("tmp_path") / "store", "0123456789abcdef")
    >>> prints.enroll("Ada", [[1.0, 0.0]], [3.0]), prints.enroll("Grace", [[0.0, 1.0]], [3.0])
    (1, 1)
    >>> known, calibration = OpenSet((0.01,), (1, 100), ((3.0, 9.0),), margin=1.0), Calibration(20.0, -6.0)
    >>> found = identify_open_set(prints, [1.0, 0.1], side_quality([3.0]), calibration, known)
    >>> found.speaker, round(found.margin, 2), round(found.threshold, 3)
    ('Ada', 0.9, 0.53)
    >>> identify_open_set(prints, [1.0, 0.99], side_quality([3.0]), calibration, known).speaker
    """
    names = prints.count()
    found = prints.identify([embedding], -1.0, max(2, n_best))[0]
    least = calibration.at().llr_threshold
    limit = max(least, open_set.threshold(names, error))
    if not found.candidates:
        return found
    ratios, at_best = [], None
    for candidate in found.candidates[:2]:
        reference = prints.reference(candidate.name)
        side = None if reference is None else side_quality(reference.seconds, reference.bandwidths)
        at = calibration.at(side, probe)
        at_best = at if at_best is None else at_best
        ratios.append(float(at.llr(candidate.score)))
    # Of two equally good names, the second may have the higher ratio for having less speech: then neither is accepted.
    known = probe is not None and ratios[0] >= least and open_set.accepts(ratios, names, error)
    return replace(
        found,
        speaker=found.candidates[0].name if known else None,
        candidates=found.candidates[:n_best],
        threshold=(limit - at_best.offset) / at_best.scale,
    )
