"""The timed work of each process of `evaluation.py`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import torch
from recipe_runs import SPEECH

from speechbrain_bccmt.scoring import (
    cllr,
    cosine_scores,
    equal_error_rate,
    min_cllr,
    min_dcf,
    miss_rate_at,
    s_norm,
)
from speechbrain_bccmt.scoring.cohorts import speaker_means
from speechbrain_bccmt.trials.read import read_trials

SIZE, COHORT, TOP_N = 192, 5994, 300
SPEECHBRAIN_TRIALS = 37_720
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
    """Draw embeddings (N, 192), float32: a mean per speaker, noise per utterance."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((int(speakers.max()) + 1, SIZE), dtype=np.float32)
    embeddings = means[speakers]
    embeddings += np.float32(noise) * rng.standard_normal(embeddings.shape, dtype=np.float32)
    return embeddings


def draw_trials(trials: int, utterances: int, speakers: int, seed: int) -> tuple[np.ndarray, ...]:
    """Draw the speaker of each utterance, and trials, half of them target trials."""
    rng = np.random.default_rng(seed)
    speaker = np.arange(utterances) % speakers
    enrol, test = rng.integers(0, utterances, (2, trials))
    same = rng.integers(0, 2, trials).astype(bool)
    # In a target trial the test utterance is another one of the enrolled speaker.
    step = speakers * rng.integers(1, max(2, utterances // speakers), trials)
    test = np.where(same, (enrol + step) % (utterances - utterances % speakers), test)
    return speaker, enrol, test, speaker[enrol] == speaker[test]


def all_metrics(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compute all metrics of one score list."""
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


# Each of the following runs in a separate process, in a folder prepared by `main`.


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
    """Score, normalise and evaluate a list; the utterances stay 20,000, as in a test set."""
    speaker, *drawn = draw_trials(trials, 20_000, 500, seed=4)
    embeddings, cohort = make_embeddings(speaker, seed=5), make_embeddings(np.arange(COHORT), seed=6)
    clock.start()
    evaluate(clock, embeddings, drawn, cohort, top_n=None)
    return {"trials": trials}


RUNS = {
    function.__name__.removeprefix("run_"): function
    for function in (run_metrics, run_speechbrain_metric, run_s_norm, run_speechbrain_s_norm)
} | {"hard": run_hard, "large": run_large, "growth": run_growth}
