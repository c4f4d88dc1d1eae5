"""Temporary names: whose are kept, whose are removed."""

import os
import platform
import subprocess
import sys

import pytest

from speechbrain_bccmt.files import temporary_sibling, write_together


@pytest.fixture
def dead_process():
    """Return the id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.skipif(sys.platform == "win32", reason="leftovers stay on Windows")
def test_only_leftovers_of_dead_processes_on_this_machine_are_removed(tmp_path, dead_process):
    node = platform.node()
    leftovers = [f".{node}-{dead_process}.partial.{name}" for name in ("train.csv", "of another file.wav")]
    leftovers.append(f".{node}-{10**30}.partial.a")  # an id that no system assigns
    kept = {
        f".{node}-{os.getpid()}.partial.a",  # this process, from another thread
        f".{node}-1.partial.a",  # alive, and perhaps someone else's
        f".{node}x-{dead_process}.partial.a",  # written by another machine
        f".{node}-.partial.a",
        f".{node}-{dead_process}",
        f"{node}-{dead_process}.partial.a",
        "train.csv",
    }
    for name in [*leftovers, *kept]:
        (tmp_path / name).write_text("content")
    with temporary_sibling(tmp_path / "train.csv") as temporary:
        assert {path.name for path in tmp_path.iterdir()} == kept
        temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_temporary_files_stay_together_until_all_are_written(tmp_path):
    """Cleaning up for the second file must not take away the first."""
    write_together({tmp_path / "a": "1", tmp_path / "b": "2"}, tmp_path / "seal", "3")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2", "seal": "3"}
