"""The shipped model gives the figures that docs/model.md documents."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_error_rates_hold(speech_data):
    """On the lists that take less than a minute; `make model-check` judges on all."""
    command = [sys.executable, ROOT / "benchmarks" / "model_card.py", "--check"]
    command += ["--corpora", "an4", "msc_malayalam", "speechocean762"]
    environment = os.environ | {"SPEECH_DATA": str(speech_data), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("documented") == 3 and "FAILED" not in found.stdout


def test_without_speech_the_check_says_so(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "model_card.py", "--check"]
    environment = os.environ | {"SPEECH_DATA": str(tmp_path)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("skipped: none of the corpora in")
