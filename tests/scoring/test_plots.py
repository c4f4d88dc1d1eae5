"""Pictures are written for ordinary and for degenerate scores."""

import numpy as np
import pytest

from speechbrain_bccmt.scoring.plots import plot_det, plot_score_histogram

generator = np.random.default_rng(0)
CASES = {
    "ordinary": (generator.normal(1, 1, 500), generator.normal(0, 1, 2000)),
    "separate": ([2.0, 3.0], [0.0, 1.0]),
    "equal": ([1.0, 1.0], [1.0]),
    "reversed": ([0.0], [1.0]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_pictures(tmp_path, case):
    plot_score_histogram(*CASES[case], tmp_path / "histogram.png", title=case)
    plot_score_histogram(*CASES[case], tmp_path / "marked.png", threshold=0.5)
    plot_det({"this": CASES[case], "ordinary": CASES["ordinary"]}, tmp_path / "det.png", title=case)
    for name in ("histogram", "marked", "det"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
