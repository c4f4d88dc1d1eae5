"""From embeddings to scores, and from scores to error rates."""

from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.cohorts import subtract_mean
from speechbrain_bccmt.scoring.cosine import cosine_scores
from speechbrain_bccmt.scoring.metrics import (
    act_dcf,
    cllr,
    det_curve,
    equal_error_rate,
    min_cllr,
    min_dcf,
    miss_rate_at,
)
from speechbrain_bccmt.scoring.norms import s_norm, t_norm, z_norm

__all__ = [
    "Calibration",
    "act_dcf",
    "cllr",
    "cosine_scores",
    "det_curve",
    "equal_error_rate",
    "min_cllr",
    "min_dcf",
    "miss_rate_at",
    "s_norm",
    "subtract_mean",
    "t_norm",
    "z_norm",
]
