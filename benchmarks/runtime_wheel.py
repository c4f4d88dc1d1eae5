#!/usr/bin/env python3
"""Installs bccmt-runtime in a separate environment, and measures it next to the full package, in one run.

    python benchmarks/runtime_wheel.py [--calls 100000] [--pythons python3.10 python3.13] [--platforms]

Prints the cost of `bccmt verify a.wav b.wav` on two clips of 3 s from a cold start, with PyTorch, with the graph in the
full package, and in bccmt-runtime, in turns: the median and the best of ROUNDS, the processor seconds, which other work
on the machine affects least, and the peak memory. Then the installed size, the time for 3 s on one thread, the results
of 16 threads, and the memory over --calls calls. Every interpreter of `--pythons` installs the wheel from prebuilt
wheels alone, like a machine without a compiler, and verifies the same two clips. `--platforms` asks the package index
which 64-bit ARM wheels exist. Writes results/runtime/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 9
RATE = 16000
# manylinux tags, newest first, supported by Raspberry Pi OS of 2023 and later.
ARM = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Part of every environment, not of the runtime.
OF_PIP = re.compile(r"pip|setuptools|pkg_resources|_distutils_hack|distutils-precedence")

RUN_ONCE = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds, code = time.perf_counter() - begun, os.waitstatus_to_exitcode(status)
used = usage.ru_utime + usage.ru_stime
print(json.dumps({"s": seconds, "cpu_s": used, "kb": usage.ru_maxrss, "code": code}))
"""
IN_PROCESS = """
import json, statistics, sys, threading, time
import numpy as np
from speechbrain_bccmt.inference import GraphVerifier

calls = int(sys.argv[1])
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6
model, rng = GraphVerifier.load(), np.random.default_rng(0)
wav, times, used = rng.normal(0, 0.1, 48000).astype(np.float32), [], []
for _ in range(200):
    begun, begun_used = time.perf_counter(), time.process_time()
    model.embed_waveform(wav)
    times.append(1000 * (time.perf_counter() - begun))
    used.append(1000 * (time.process_time() - begun_used))
found = {"ms_3s": statistics.median(times), "best_ms_3s": min(times), "processor_ms_3s": statistics.median(used)}

wavs = [rng.normal(0, 0.1, size).astype(np.float32) for size in range(4800, 48000, 2700)]
alone, wrong = [model.embed_waveform(wav) for wav in wavs], []
def work(number):
    for turn in range(50):
        place = (number + turn) % len(wavs)
        if not np.array_equal(model.embed_waveform(wavs[place]), alone[place]):
            wrong.append(place)
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
begun = time.perf_counter()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
found["threads"] = {"threads": 16, "calls": 800, "wrong": len(wrong), "s": time.perf_counter() - begun}

used, step = [], max(1, calls // 10)
for number in range(calls):
    model.embed_waveform(wavs[number % len(wavs)][:8000])
    if (number + 1) % step == 0:
        used.append(round(resident(), 1))
print(json.dumps(found | {"calls": calls, "resident_mb": used}))
"""


def clean_environment(threads: int = 1) -> dict[str, str]:
    """Return the environment variables without those that would let in modules from elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BCCMT"))}
    return kept | {"OMP_NUM_THREADS": str(threads)}


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the source."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("page", "page.*", "build", "__pycache__", "*.egg-info")
    for name in ("speechbrain_bccmt", "runtime", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    shutil.copy(ROOT / "setup.py", source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, source / "runtime"], check=True, capture_output=True)
    return next(folder.glob("bccmt_runtime-*.whl"))


def install(wheel: Path, folder: Path, python: str = sys.executable) -> Path:
    """Create an environment with the wheel and its requirements, from prebuilt wheels alone; return its folder."""
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True, env=clean_environment())
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary=:all:", wheel]
    subprocess.run(command, check=True, capture_output=True, env=clean_environment())
    return folder


def write_clips(folder: Path) -> list[str]:
    """Write two clips of 3 s: the voiced noise used in the tests."""
    import soundfile

    sys.path.insert(0, str(ROOT))
    from tests.voices import voice

    paths = [str(folder / f"{name}.wav") for name in "ab"]
    for number, path in enumerate(paths):
        soundfile.write(path, voice(3.0, number), RATE)
    return paths


def run_once(command: list, environment: dict) -> dict[str, float]:
    """Run a program; return its wall-clock and processor seconds, and its peak memory in kB."""
    # From a small process, as a program's peak memory starts with that of its parent.
    command = [sys.executable, "-I", "-S", "-c", RUN_ONCE, *map(str, command)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = json.loads(done.stdout)
    if found["code"] not in (0, 1):  # same, different
        raise SystemExit(f"{' '.join(command[5:])} failed")
    return found


def cold_starts(environment: Path, clips: list[str], rounds: int = ROUNDS) -> dict[str, dict]:
    """Time the command in turns, so that other work on the machine affects all alike."""
    ours = clean_environment() | {"PYTHONPATH": str(ROOT)}
    full = [sys.executable, "-m", "speechbrain_bccmt", "verify", *clips]
    commands = {
        "PyTorch": ([*full, "--engine", "torch"], ours),
        "ONNX Runtime, full package": (full, ours),
        "bccmt-runtime": ([environment / "bin" / "bccmt", "verify", *clips], clean_environment()),
    }
    found = defaultdict(list)
    for name, command in commands.items():
        run_once(*command)  # files into memory
        found[name] = []
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(run_once(*command))
    return {
        name: {
            "s": statistics.median(run["s"] for run in runs),
            "best_s": min(run["s"] for run in runs),
            "cpu_s": statistics.median(run["cpu_s"] for run in runs),
            "peak_mb": max(run["kb"] for run in runs) * 1024 / 1e6,
        }
        for name, runs in found.items()
    }


def installed_size(environment: Path) -> dict:
    """Sum up the environment in MB of 1e6 bytes, without pip: total, largest parts, .pyc files, duplicate library."""
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    packages = packages if packages.is_dir() else next(environment.glob("lib/python*/site-packages"))
    parts, compiled, doubled = defaultdict(int), 0, 0
    for path in packages.rglob("*"):
        top = path.relative_to(packages).parts[0]
        if path.is_file() and not OF_PIP.match(top):
            size = path.stat().st_size
            parts[top] += size
            compiled += size * (path.suffix == ".pyc")
            doubled += size * path.name.startswith("libonnxruntime.so")
    largest = sorted(parts.items(), key=lambda part: -part[1])[:6]
    return {
        "mb": sum(parts.values()) / 1e6,
        "compiled_mb": compiled / 1e6,
        "second_library_mb": doubled / 1e6,
        "parts_mb": {name: size / 1e6 for name, size in largest},
    }


def in_process(environment: Path, calls: int) -> dict:
    """Measure latency, threads and memory within one process of the environment."""
    command = [environment / "bin" / "python", "-c", IN_PROCESS, str(calls)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def arm_wheels(wheel: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Ask the package index for the wheels of 64-bit ARM: file name of each requirement for each Python."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for version in PYTHONS:
        report = folder / f"{version}.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--dry-run",
            "--ignore-installed",
            "--report",
            report,
        ]
        command += ["--target", folder / "target", "--only-binary=:all:", "--python-version", version]
        command += [part for name in ARM for part in ("--platform", f"{name}_aarch64")]
        subprocess.run([*command, f"{wheel}[containers]"], check=True, capture_output=True)
        for entry in json.loads(report.read_text())["install"]:
            name = entry["download_info"]["url"].rpartition("/")[2]
            found[entry["metadata"]["name"]][version] = name
    return dict(found)


def cold_start_table(found: dict[str, dict]) -> str:
    """Lay out the cold starts as a Markdown table."""
    reference = found["PyTorch"]["cpu_s"]
    heads = ["bccmt verify a.wav b.wav", "s, median", "s, best", "CPU s", "PyTorch's / it", "peak MB"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, row in found.items():
        cells = [name, *(f"{row[key]:.2f}" for key in ("s", "best_s", "cpu_s"))]
        cells += [f"{reference / row['cpu_s']:.1f}", f"{row['peak_mb']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100_000, help="calls over which memory is watched")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--pythons", nargs="*", default=[], metavar="PYTHON", help="interpreters to install for"
    )
    parser.add_argument("--platforms", action="store_true", help="look for 64-bit ARM wheels")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "runtime")
    options = parser.parse_args()

    from recipe_runs import describe_machine

    found = {"machine": describe_machine(1), "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel, clips = build_wheel(folder), write_clips(folder)
        environment = install(wheel, folder / "environment")
        found["wheel_mb"] = wheel.stat().st_size / 1e6
        found["size"] = installed_size(environment)
        found["cold_start"] = cold_starts(environment, clips, options.rounds)
        found["in_process"] = in_process(environment, options.calls)
        found["pythons"] = {}
        for number, python in enumerate(options.pythons):
            other = install(wheel, folder / f"python{number}", python)
            command = [other / "bin" / "bccmt", "verify", *clips, "--json"]
            done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
            version = subprocess.run(
                [other / "bin" / "python", "-V"], capture_output=True, text=True
            ).stdout.strip()
            size = installed_size(other)["mb"]
            found["pythons"][version] = {"score": json.loads(done.stdout)["score"], "mb": size}
        found["arm"] = arm_wheels(wheel, folder) if options.platforms else {}
    print(cold_start_table(found["cold_start"]))
    print(json.dumps({key: value for key, value in found.items() if key != "cold_start"}, indent=2))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
