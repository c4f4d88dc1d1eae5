"""Measure time and memory of the evaluation: against SpeechBrain's functions, on VoxCeleb1-H, and by list size.

Four parts, each a table; every figure, peak memory included, comes from a separate process.

- `speechbrain`: the same embeddings and trials (37,720, as many as VoxCeleb1-O has) with SpeechBrain's `EER` and
  `minDCF`, and with s-norm as in its VoxCeleb recipe, trial by trial with the cohort repeated; that loop is not a
  function of the package, so its torch operations are restated here, on some of the trials, and the time is scaled
  up in proportion. SpeechBrain's minDCF needs 18.7 GB: if less is free, it runs on fewer trials, and time and
  memory are scaled up by the square of the number.
- `voxceleb1-h`: the real list (552,536 trials) from its gzipped text to all metrics, including adaptive s-norm.
- `large`: 3.7 million trials, 196 models by 17,777 tests plus single trials, as in CN-Celeb.
- `growth`: 10 thousand to 10 million trials.

Embeddings are synthetic, 192 dimensions, speaker means plus noise. Writes results/evaluation/evaluation.json.

    python benchmarks/evaluation.py            # about five minutes, twenty on a busy machine
    python benchmarks/evaluation.py --quick    # small sizes, under a minute
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from evaluation_runs import (
    COHORT,
    HARD_LIST,
    RUNS,
    SPEECHBRAIN_TRIALS,
    Clock,
    draw_trials,
    make_embeddings,
)
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.trials.read import Trials, read_trials, speaker_of, write_trials

PARTS = ("speechbrain", "voxceleb1-h", "large", "growth")
SPEECHBRAIN_MEMORY = 18.7  # needed by its minDCF for that many trials, in GB


def measure(folder: Path, threads: int, name: str, *arguments) -> dict:
    """Run one of `RUNS` in a new process; return its result, the seconds of its steps, and its peak memory in GB."""
    command = [sys.executable, __file__, "--run", name, json.dumps(arguments), "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        sys.exit(f"{run.stderr}error: {name} ended with exit code {run.returncode}")
    return json.loads(run.stdout.splitlines()[-1])


def free_memory() -> float:
    """Return the memory available without swapping, in GB; infinite if the system does not report it."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return found[0] * 1024 / 1e9 if found else float("inf")


def table(header: list[str], rows: list[list]) -> None:
    """Print a table in Markdown."""
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()


def seconds(step: dict[str, float]) -> str:
    """Return wall-clock and CPU seconds."""
    return f"{step['wall']:.3g} ({step['cpu']:.3g})"


def ratios(theirs: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """Divide wall-clock by wall-clock and CPU seconds by CPU seconds."""
    return {key: theirs[key] / ours[key] for key in ours}


def compare_with_speechbrain(folder: Path, threads: int, quick: bool) -> dict:
    """Compare values, seconds and memory at the same trials."""
    all_trials = 4000 if quick else SPEECHBRAIN_TRIALS
    speaker, enrol, test, target = draw_trials(all_trials, 4708, 40, seed=1)
    cohort = make_embeddings(np.arange(5000), seed=3)
    embeddings = make_embeddings(speaker, seed=2)
    np.savez(
        folder / "small.npz", embeddings=embeddings, cohort=cohort, enrol=enrol, test=test, target=target
    )
    fits = free_memory() > (SPEECHBRAIN_MEMORY + 1.5) * (all_trials / SPEECHBRAIN_TRIALS) ** 2
    part = {"EER": all_trials, "minDCF": all_trials if fits else all_trials // 2}
    report, rows = {"trials": all_trials}, []
    for name, trials in part.items():
        ours, whole = (measure(folder, threads, "metrics", number) for number in (trials, all_trials))
        theirs = measure(folder, threads, "speechbrain_metric", trials, name)
        factor = (all_trials / trials) ** 2
        projected = {key: factor * value for key, value in theirs["steps"][name].items()}
        ratio = ratios(projected, whole["steps"][name])
        # The memory of the imports, nearly all that ours needs, does not grow.
        peak = ours["peak"] + factor * (theirs["peak"] - ours["peak"])
        values = ours["found"][name], theirs["found"][name]
        apart = abs(values[0] - values[1])
        report[name] = {
            "trials": trials,
            "ours": ours,
            "ours_at_all": whole,
            "speechbrain": theirs,
            "ratio": ratio,
        }
        report[name] |= {"projected": factor > 1, "difference": apart}
        rows.append(
            [
                name,
                f"{trials:,}" + (f", projected to {all_trials:,}" if factor > 1 else ""),
                f"{values[0]:.6f} / {values[1]:.6f}",
                f"{apart:.1e}",
                seconds(whole["steps"][name]),
                seconds(projected),
                f"{ratio['wall']:,.0f} ({ratio['cpu']:,.0f})",
                f"{whole['peak']:.2f} / {peak:.2f}",
            ]
        )
    least = min(target.sum(), (~target).sum())
    print(f"One trial of the smaller class is {1 / least:.1e}.")
    subset = 20 if quick else 100
    ours, theirs = (
        measure(folder, threads, "s_norm", subset),
        measure(folder, threads, "speechbrain_s_norm", subset),
    )
    for name in ("s-norm", "adaptive s-norm"):
        apart = float(np.abs(np.subtract(ours["found"][name], theirs["found"][name])).max())
        mine = {key: ours["steps"][name][key] + ours["steps"]["cosine"][key] for key in ("wall", "cpu")}
        projected = {key: value * all_trials / subset for key, value in theirs["steps"][name].items()}
        report[name] = {"ours": mine, "speechbrain": projected, "subset": subset, "difference": apart}
        ratio = ratios(projected, mine)
        report[name] |= {"ratio": ratio, "peaks": [ours["peak"], theirs["peak"]]}
        rows.append(
            [
                f"cosine, {name}, cohort 5,000",
                f"{subset}, projected to {all_trials:,}",
                "",
                f"{apart:.1e}",
                seconds(mine),
                seconds(projected),
                f"{ratio['wall']:,.0f} ({ratio['cpu']:,.0f})",
                f"{ours['peak']:.2f} / {theirs['peak']:.2f}",
            ]
        )
    header = ["", "SpeechBrain at trials", "value ours / SpeechBrain", "largest difference", "ours s (CPU s)"]
    table([*header, "SpeechBrain s (CPU s)", "ratio (CPU)", "peak GB ours / SpeechBrain"], rows)
    return report


def total(run: dict) -> dict[str, float]:
    """Sum the seconds of a run's steps."""
    return {key: sum(step[key] for step in run["steps"].values()) for key in ("wall", "cpu")}


def measure_steps(name: str, folder: Path, threads: int, kind: str, repeats: int) -> dict:
    """Run a long evaluation several times and print the steps of the median one."""
    runs = sorted(
        (measure(folder, threads, kind) for _ in range(repeats)), key=lambda run: total(run)["wall"]
    )
    run = runs[len(runs) // 2]
    run["total"], run["totals"] = total(run), [total(each) for each in runs]
    steps, found = run["steps"], run["found"]
    row = [name, f"{found['trials']:,}", f"{found['utterances']:,}", *map(seconds, steps.values())]
    header = ["list", "trials", "utterances", *(f"{step} s (CPU s)" for step in steps)]
    table([*header, "all s (CPU s)", "peak GB"], [[*row, seconds(run["total"]), f"{run['peak']:.2f}"]])
    for system, values in found["metrics"].items():
        print(f"{system}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in values.items()))
    return run


def hard(folder: Path, threads: int, quick: bool) -> dict:
    """VoxCeleb1-H."""
    if not HARD_LIST.is_file():
        print(f"VoxCeleb1-H is left out: no list at {HARD_LIST}; set SPEECH_DATA")
        return {}
    ids = read_trials(HARD_LIST).ids
    speaker = np.unique([speaker_of(name) for name in ids], return_inverse=True)[1]
    np.save(folder / "embeddings.npy", make_embeddings(speaker, seed=1))
    speaker = np.repeat(np.arange(300 if quick else COHORT), 5)
    np.save(folder / "cohort.npy", make_embeddings(speaker, seed=2))
    np.save(folder / "speakers.npy", speaker)
    return measure_steps("VoxCeleb1-H", folder, threads, "hard", 1 if quick else 3)


def large(folder: Path, threads: int, quick: bool) -> dict:
    """196 models by 17,777 tests, plus single trials."""
    models, tests, all_trials = (20, 2000, 45_000) if quick else (196, 17_777, 3_700_000)
    speaker = np.arange(models + tests) % models
    rest = all_trials - models * tests
    rng = np.random.default_rng(3)
    # The rest compares tests with each other; all distinct, as a list names no trial twice.
    first = rng.integers(0, tests, rest)
    second = (first + 1 + np.arange(rest) % (tests - 1)) % tests
    pairs = np.unique(first * tests + second)
    enrol = np.concatenate([np.repeat(np.arange(models), tests), models + pairs // tests])
    test = np.concatenate([np.tile(models + np.arange(tests), models), models + pairs % tests])
    ids = [f"id{s:05d}/session/{number}" for number, s in enumerate(speaker.tolist())]
    write_trials(folder / "large.txt", Trials(ids, enrol, test, speaker[enrol] == speaker[test]), "kaldi")
    np.save(folder / "embeddings.npy", make_embeddings(speaker, seed=1))
    np.save(folder / "cohort.npy", make_embeddings(np.arange(COHORT), seed=2))
    name = f"{models} models by {tests:,} tests and more"
    return measure_steps(name, folder, threads, "large", 1 if quick else 3)


def growth(folder: Path, threads: int, quick: bool) -> dict:
    """Evaluate lists of growing size, each ten times the previous one."""
    runs, rows = [], []
    for trials in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000, 10_000_000):
        run = measure(folder, threads, "growth", trials)
        runs.append(run | {"total": total(run)})
        times = f"{total(run)['cpu'] / runs[-2]['total']['cpu']:.1f}" if len(runs) > 1 else ""
        cells = [seconds(step) for step in run["steps"].values()]
        rows.append([f"{trials:,}", *cells, seconds(total(run)), times, f"{run['peak']:.2f}"])
    header = ["trials", *(f"{step} s (CPU s)" for step in run["steps"]), "all s (CPU s)"]
    table([*header, "times the row above, CPU", "peak GB"], rows)
    return {"runs": runs}


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--threads", type=int, default=2, help="threads per process (default 2)")
    parser.add_argument("--quick", action="store_true", help="small sizes, as a smoke test")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "evaluation")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error("--threads must be 1 or more")
    if arguments.run:
        clock = Clock()
        found = RUNS[arguments.run[0]](arguments.folder, clock, *json.loads(arguments.run[1]))
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024)
            / 1e9
        )
        return print(json.dumps({"found": found, "steps": clock.steps, "peak": peak}))
    machine = describe_machine(arguments.threads)
    load = os.getloadavg()[0]
    print(f"{machine}, seeds in the code; load {load:.1f} and {free_memory():.1f} GB free at the start")
    functions = dict(zip(PARTS, (compare_with_speechbrain, hard, large, growth), strict=True))
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / ("quick.json" if arguments.quick else "evaluation.json")
    report = json.loads(file.read_text()) if file.is_file() else {}
    for part in arguments.parts:
        print(f"\n## {part}")
        with tempfile.TemporaryDirectory() as folder:
            found = functions[part](Path(folder), arguments.threads, arguments.quick)
        report[part] = found | {"machine": machine, "load": [load, os.getloadavg()[0]]}
        file.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end; all figures are in {file}")


if __name__ == "__main__":
    main()
