"""benchmarks/shipped_training.py trains from beginning to end, and goes on where it was stopped."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
# By their names, the first of each is heard in training, the second kept for the conditions of the test.
NOISES = ("noise/file 1", "noise/0", "rir/file 1", "rir/0")
# CAM++ is no part of the package: another network of its size of embedding stands for it.
DRIVER = """
import sys
import torch
import training_speech

class Teacher(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(80, 192))

    def forward(self, features):
        return features.std(1) @ self.weight

training_speech.campplus_model = Teacher
import shipped_training
sys.exit(shipped_training.main())
"""


# A pulse train of 125 Hz through one resonance: where its spectrum peaks, and after how many samples it repeats.
VOWEL = """
import numpy as np
import torch
from scipy.signal import lfilter
from training_speech import shift_formants

pulses = np.zeros(16000)
pulses[::128] = 1000
pole = 0.96 * np.exp(2j * np.pi * 2000 / 16000)
vowel = lfilter([1], np.poly([pole, pole.conj()]).real, pulses)
for factor in (1.0, 0.85, 1.17):
    wave = shift_formants(torch.from_numpy(vowel).float(), factor).numpy()[2000:-2000]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    repeats = np.correlate(wave, wave, "full")[len(wave) - 1 :]
    print(spectrum.argmax() * 16000 / len(wave), 90 + repeats[90:200].argmax())
"""


def test_formants_move_and_the_pitch_stays():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
    found = subprocess.run(
        [sys.executable, "-c", VOWEL], env=environment, capture_output=True, text=True, check=True
    )
    rows = [tuple(map(float, line.split())) for line in found.stdout.splitlines()]
    assert [period for _, period in rows] == [128, 128, 128]
    # Peaks lie on harmonics, 125 Hz apart.
    assert [peak for peak, _ in rows] == pytest.approx([2000, 1700, 2340], abs=80)


def test_it_trains_on_new_voices_and_resumes(tmp_path):
    rng = np.random.default_rng(0)
    with open(ROOT / "benchmarks" / "held_out_speakers.csv", newline="", encoding="utf-8") as file:
        held_out = [row["speaker"] for row in csv.DictReader(file) if row["corpus"] == "an4"]
    places = [f"an4/wav/{name}/1/{take}" for name in [*held_out, "ada", "grace", "edsger"] for take in "ab"]
    (tmp_path / "an4" / "meta").mkdir(parents=True)
    for place in [*places, *NOISES]:
        path = tmp_path / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds = 9 if place.startswith("noise") else rng.uniform(0.8, 1.5)
        soundfile.write(path, rng.normal(0, 0.1, int(16000 * seconds)), 16000)
    environment = os.environ | {
        "SPEECH_DATA": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)]),
    }

    def train(minutes):
        options = ["--minutes", str(minutes), "--batch-seconds", "10", "--device", "cpu"]
        options += ["--speeds", "3", "--new-voices", "2"]
        command = [sys.executable, "-c", DRIVER, str(tmp_path / "out"), *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    found = train(0.05)
    assert found.returncode == 0, found.stderr
    assert "teacher" in found.stderr
    head, _, *rows = found.stdout.splitlines()
    assert head == "| EER %, held-out speakers | an4 | mean |"
    assert [row.split(" | ")[0] for row in rows][:2] == ["| whole", "| 1 s"] and len(rows) == 5
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"checkpoint.pt", "curve.csv", "curve.png", "embedding_model.safetensors", "targets"}
    found = train(0.1)
    assert found.returncode == 0 and "goes on from step" in found.stderr, found.stderr
    assert "teacher" not in found.stderr  # its embeddings are kept
    rows = list(csv.reader((tmp_path / "out" / "curve.csv").open()))[1:]
    assert len(rows) == 2 and int(rows[1][1]) > int(rows[0][1])
