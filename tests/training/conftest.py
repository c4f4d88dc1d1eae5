"""Utterances for the training loops."""

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Twelve utterances of three speakers, told apart by their spectrum."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    rows = {}
    for index in range(12):
        noise = rng.standard_normal(9600)
        wave = np.convolve(noise, np.cos(np.arange(40) * (0.3 + 0.5 * (index % 3))), "same")
        path = folder / f"{index}.wav"
        soundfile.write(path, 0.1 * wave / wave.std(), 16000)
        rows[f"s{index % 3}/v/{index}"] = {
            "wav": str(path),
            "start": "0",
            "stop": "9600",
            "spk_id": f"s{index % 3}",
            "sample_rate": "16000",
            "duration": 0.6,
        }
    return rows
