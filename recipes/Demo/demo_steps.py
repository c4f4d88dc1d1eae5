"""The steps of a demo: runs recipe scripts, each once, and shows their progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from speechbrain_bccmt.files import write_together

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"


class StepFailed(Exception):
    """A recipe script failed; holds its exit code."""

    def __init__(self, title: str, code: int, log: Path):
        super().__init__(f"{title} ended with exit code {code}; its messages are in {log}")
        # A process killed by a signal has a negative code; shells add 128 to the signal's number.
        self.code = code if code > 0 else 128 - code


def run_step(title: str, recipe: str, arguments: list[str], folder: Path) -> float:
    """Run a script of a recipe, unless it has finished in this folder before; return its time in seconds.

    Its output goes to `folder`/console.txt; epochs, and on a terminal the progress bars, are shown as well.
    """
    record_file = folder / "demo_step.json"
    record = {"arguments": arguments, "seconds": 0.0, "finished": False}
    if record_file.is_file():
        found = json.loads(record_file.read_text(encoding="utf-8"))
        if found["arguments"] != arguments:
            raise ValueError(
                f"{folder} comes from other settings: delete it, or give another --output_folder"
            )
        record = found
    if record["finished"]:
        print(f"{title}: already done ({record['seconds']:.0f} s)")
        return record["seconds"]
    print(f"{title} ...")
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    earlier_seconds = record["seconds"]
    try:
        code = _run(title, recipe, [sys.executable, *arguments], folder / "console.txt")
        record["finished"] = code == 0
    finally:
        record["seconds"] = earlier_seconds + time.monotonic() - start
        write_together({}, record_file, json.dumps(record, indent=2) + "\n")
    if code != 0:
        raise StepFailed(title, code, folder / "console.txt")
    print(f"{title}: done in {record['seconds']:.0f} s")
    return record["seconds"]


def _run(title: str, recipe: str, command: list[str], log_file: Path) -> int:
    """Run a command in the recipe's folder, log its output and show its progress; return its exit code."""
    # By default idle threads spin, which slows training tenfold if any other program needs the core.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with (
        open(log_file, "a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            cwd=RECIPES / recipe / "SpeakerRec",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as process,
    ):
        text = ""
        while chunk := process.stdout.read(4096):
            text += chunk.decode("utf-8", errors="replace").replace("\r", "\n")
            *lines, text = text.split("\n")
            for line in filter(None, lines):
                log.write(line + "\n")
                _show(title, line)
            log.flush()
        log.write(text)
        return process.wait()


def _show(title: str, line: str) -> None:
    """Print the line of an epoch; on a terminal, also update the progress bar in place."""
    live = sys.stdout.isatty()
    if "train_logger - " in line:
        print(("\r\033[K" if live else "") + f"  {line.split('train_logger - ')[1]}", flush=True)
    elif live and "%|" in line:
        print(f"\r\033[K  {title}: {line[:100]}", end="", flush=True)
    elif live and "error:" in line:
        print(f"\r\033[K  {line}", flush=True)


def exit_code(run: Callable[[], None]) -> int:
    """Run a demo and return the exit code; print failures as one line on standard error."""
    try:
        run()
    except StepFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return error.code
    except (ValueError, OSError, ImportError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to continue.", file=sys.stderr)
        return 130
    return 0
