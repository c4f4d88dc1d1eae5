"""Time and weigh the evaluation: against SpeechBrain's functions, on VoxCeleb1-H, and as lists grow.

Four parts, each a table; every figure comes from a process of its own, whose peak memory is its own, too.

- `speechbrain`: the same embeddings and trials (37,720, VoxCeleb1-O's number) through SpeechBrain's `EER` and
  `minDCF`, and through s-norm as its VoxCeleb recipe does it, trial by trial with the cohort repeated; that loop
  is no function of the package, so its torch operations are restated here, on some of the trials, and the time
  is extended in proportion. SpeechBrain's minDCF needs 18.7 GB: where less is free, it runs on fewer trials,
  and time and memory are extended by the square of the number.
- `voxceleb1-h`: the real list (552,536 trials) from its gzipped text to all metrics, adaptive s-norm included.
- `large`: 3.7 million trials, 196 models by 17,777 tests and single trials beside them, as in CN-Celeb.
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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recipe_runs import ROOT, SPEECH, describe_machine

from speechbrain_bccmt.data.trials import Trials, read_trials, speaker_of, write_trials
from speechbrain_bccmt.scoring import (
    cllr,
    cosine_scores,
    equal_error_rate,
    min_cllr,
    min_dcf,
    miss_rate_at,
    s_norm,
)
from speechbrain_bccmt.scoring.cohort import speaker_means

SIZE, COHORT, TOP_N = 192, 5994, 300
PARTS = ("speechbrain", "voxceleb1-h", "large", "growth")
SPEECHBRAIN_TRIALS, SPEECHBRAIN_MEMORY = 37_720, 18.7  # and what minDCF needs for them, in GB
HARD_LIST = SPEECH / "voxceleb_meta" / "verif_hard.txt.gz"


class Clock:
    """Wall-clock and CPU seconds of the steps of one process."""

    def __init__(self):
        self.steps: dict[str, dict[str, float]] = {}
        self.start()

    def start(self) -> None:
        """Start a step."""
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self, step: str) -> None:
        """End a step, and start the next."""
        self.steps[step] = {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}
        self.start()


def make_embeddings(speakers: np.ndarray, seed: int, noise: float = 1.8) -> np.ndarray:
    """Draw embeddings (N, 192), float32: a mean for each speaker, noise for each utterance."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((int(speakers.max()) + 1, SIZE), dtype=np.float32)
    embeddings = means[speakers]
    embeddings += np.float32(noise) * rng.standard_normal(embeddings.shape, dtype=np.float32)
    return embeddings


def draw_trials(trials: int, utterances: int, speakers: int, seed: int) -> tuple[np.ndarray, ...]:
    """Draw the speaker of each utterance, and trials half of which are target trials."""
    rng = np.random.default_rng(seed)
    speaker = np.arange(utterances) % speakers
    enrol, test = rng.integers(0, utterances, (2, trials))
    same = rng.integers(0, 2, trials).astype(bool)
    # A target trial: the test utterance is another one of the enrolment's speaker.
    step = speakers * rng.integers(1, max(2, utterances // speakers), trials)
    test = np.where(same, (enrol + step) % (utterances - utterances % speakers), test)
    return speaker, enrol, test, speaker[enrol] == speaker[test]


def all_metrics(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compute every metric that one score list is judged by."""
    targets, nontargets = scores[target], scores[~target]
    return {
        "eer": equal_error_rate(targets, nontargets)[0],
        "min_dcf_0.01": min_dcf(targets, nontargets, 0.01)[0],
        "min_dcf_0.05": min_dcf(targets, nontargets, 0.05)[0],
        "miss_rate_at_0.001": miss_rate_at(targets, nontargets, 0.001)[0],
        "cllr": cllr(targets, nontargets),
        "min_cllr": min_cllr(targets, nontargets),
    }


def evaluate(clock: Clock, embeddings, trials, cohort, top_n: int | None = TOP_N) -> dict:
    """Score, normalise, and compute all metrics of both."""
    enrol, test, target = trials
    scores = cosine_scores(embeddings, enrol, test)
    clock.stop("cosine")
    normalised = s_norm(scores, embeddings, enrol, test, cohort, top_n)
    clock.stop("s-norm")
    found = {
        name: all_metrics(values, target) for name, values in (("cosine", scores), ("s-norm", normalised))
    }
    clock.stop("metrics")
    return found


# Each of the following runs in a process of its own, in a folder that holds what `main` has put there.


def load_small(folder: Path, trials: int | None = None) -> tuple:
    """Load the embeddings, cohort and trials of the comparison, and SpeechBrain's two score tensors."""
    data = np.load(folder / "small.npz")
    enrol, test, target = (data[name][:trials] for name in ("enrol", "test", "target"))
    scores = cosine_scores(data["embeddings"], enrol, test)
    tensors = torch.from_numpy(scores[target]), torch.from_numpy(scores[~target])
    return data["embeddings"], data["cohort"], enrol, test, scores, tensors


def run_metrics(folder: Path, clock: Clock, trials: int, repeats: int = 9) -> dict:
    """Ours: EER and minDCF, the median of several runs."""
    *_, tensors = load_small(folder, trials)
    found = {}
    for name, function in (("EER", equal_error_rate), ("minDCF", min_dcf)):
        runs = []
        for _ in range(repeats):
            clock.start()
            value = function(*tensors)[0]
            clock.stop(name)
            runs.append(clock.steps[name])
        clock.steps[name] = {key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu")}
        found[name] = value
    return found


def run_speechbrain_metric(folder: Path, clock: Clock, trials: int, name: str) -> dict:
    """SpeechBrain's EER or minDCF."""
    from speechbrain.utils import metric_stats

    *_, tensors = load_small(folder, trials)
    clock.start()
    value = getattr(metric_stats, name)(*tensors)[0]
    clock.stop(name)
    return {name: value / (0.01 if name == "minDCF" else 1)}  # normalised: rejecting all costs p_target


def run_s_norm(folder: Path, clock: Clock, trials: int) -> dict:
    """Ours: cosine, s-norm and adaptive s-norm of all trials; the first ones are kept for the comparison."""
    embeddings, cohort, enrol, test, scores, _ = load_small(folder)
    clock.start()
    scores = cosine_scores(embeddings, enrol, test)
    clock.stop("cosine")
    found = {}
    for name, top_n in (("s-norm", None), ("adaptive s-norm", TOP_N)):
        clock.start()
        found[name] = s_norm(scores, embeddings, enrol, test, cohort, top_n)[:trials].tolist()
        clock.stop(name)
    return found


def run_speechbrain_s_norm(folder: Path, clock: Clock, trials: int) -> dict:
    """Restate SpeechBrain's recipe: each trial scores both sides against the repeated cohort."""
    embeddings, cohort, enrol, test, *_ = load_small(folder)
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    rows = torch.from_numpy(embeddings).unsqueeze(1)  # the recipe's embeddings are (1, size)
    cohort, found = torch.from_numpy(cohort).unsqueeze(1), {}
    for name, top_n in (("s-norm", None), ("adaptive s-norm", TOP_N)):
        found[name] = []
        clock.start()
        for e, t in zip(enrol[:trials].tolist(), test[:trials].tolist(), strict=True):
            score, sides = similarity(rows[e], rows[t])[0], []
            for side in (e, t):
                against = similarity(rows[side].repeat(len(cohort), 1, 1), cohort)
                if top_n is not None:
                    against = torch.topk(against, k=top_n, dim=0)[0]
                sides.append((score - against.mean(dim=0)) / against.std(dim=0))
            found[name].append(float(0.5 * sum(sides)))
        clock.stop(name)
    return found


def run_hard(folder: Path, clock: Clock) -> dict:
    """VoxCeleb1-H: the list, stored embeddings, the cohort's speaker means, scores, norm, metrics."""
    clock.start()
    trials = read_trials(HARD_LIST)
    clock.stop("list")
    embeddings = np.load(folder / "embeddings.npy")
    cohort = speaker_means(np.load(folder / "cohort.npy"), np.load(folder / "speakers.npy").tolist())
    clock.stop("embeddings and cohort")
    found = evaluate(clock, embeddings, (trials.enrol, trials.test, trials.target), cohort)
    return {"trials": len(trials), "utterances": len(trials.ids), "cohort": len(cohort), "metrics": found}


def run_large(folder: Path, clock: Clock) -> dict:
    """Millions of trials, from the list's text on."""
    clock.start()
    trials = read_trials(folder / "large.txt")
    clock.stop("list")
    embeddings, cohort = np.load(folder / "embeddings.npy"), np.load(folder / "cohort.npy")
    rows = np.array([int(name.rpartition("/")[2]) for name in trials.ids])
    embeddings = embeddings[rows]
    clock.stop("embeddings and cohort")
    found = evaluate(clock, embeddings, (trials.enrol, trials.test, trials.target), cohort)
    return {"trials": len(trials), "utterances": len(trials.ids), "cohort": len(cohort), "metrics": found}


def run_growth(folder: Path, clock: Clock, trials: int) -> dict:
    """Score, normalise and judge a list; the utterances stay 20,000, as in a test set."""
    speaker, *drawn = draw_trials(trials, 20_000, 500, seed=4)
    embeddings, cohort = make_embeddings(speaker, seed=5), make_embeddings(np.arange(COHORT), seed=6)
    clock.start()
    evaluate(clock, embeddings, drawn, cohort, top_n=None)
    return {"trials": trials}


RUNS = {
    function.__name__.removeprefix("run_"): function
    for function in (run_metrics, run_speechbrain_metric, run_s_norm, run_speechbrain_s_norm)
} | {"hard": run_hard, "large": run_large, "growth": run_growth}


def measure(folder: Path, threads: int, name: str, *arguments) -> dict:
    """Run one of `RUNS` in a new process: what it found, the seconds of its steps, its peak memory in GB."""
    command = [sys.executable, __file__, "--run", name, json.dumps(arguments), "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        sys.exit(f"{run.stderr}error: {name} ended with exit code {run.returncode}")
    return json.loads(run.stdout.splitlines()[-1])


def free_memory() -> float:
    """Return the memory that can be had without swapping, in GB; infinite where the system does not tell."""
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
    """Give wall-clock and CPU seconds."""
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
        # What the imports take, which is about all that ours takes, does not grow.
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
    """196 models by 17,777 tests, and single trials beside them."""
    models, tests, all_trials = (20, 2000, 45_000) if quick else (196, 17_777, 3_700_000)
    speaker = np.arange(models + tests) % models
    rest = all_trials - models * tests
    rng = np.random.default_rng(3)
    # The rest compares tests with each other; distinct, as a list names no trial twice.
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
    """Ten times as many trials, again and again."""
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
    parser.add_argument("--threads", type=int, default=2, help="of each process (default 2)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
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
