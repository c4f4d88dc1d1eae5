"""Small phrase corpora on disk, for the tests of their preparation."""

import numpy as np
import soundfile


def write_noise(path, seconds=0.05, rate=16000):
    """Write a short file of noise, whose samples follow from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, path.name)))
    kind = {".sph": "NIST"}.get(path.suffix)
    soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * rate)), rate, format=kind)
