#!/usr/bin/env python3
"""Compares the readouts of TokenEmbedder on real commands, with and without memory layers.

    python benchmarks/phrases.py [--epochs 8] [--seeds 1 2 3] [--runs mean-memory class-memory ...] [--jobs 2]

Text-dependent: 18 training speakers, 12 other test speakers, 40 one-second words. All systems have the same data, steps
and seeds; the last checkpoint is tested, so nothing is selected. The teacher of the distillation is the class token's
run with the same seed and memory. Runs on arabic_speech_commands in the folder SPEECH_DATA; finished runs are reused,
interrupted ones are resumed. Prints EER by type of trial, mean and standard deviation over the seeds, and the
differences that the paper claims, seed by seed; writes results.json into the output folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recipe_runs import ROOT, describe_machine, speech_corpus, train, verify

# The cosine of the whole embedding, of its two parts, and the two fused on the dev speakers.
PARTS = ("cosine", "voice", "phrase", "fusion")
# For each system: its YAML, its options, and the ways to read its embedding, or to score it if it has two parts.
SYSTEMS = {
    "mean": ("token", {"readout": "mean"}, ("class",)),
    "class": ("token", {}, ("class",)),
    "sampled4": ("token", {"class_tokens": 4}, ("class",)),
    "sampled16": ("token", {"class_tokens": 16}, ("class",)),
    "mean_positions": ("token", {"readout": "mean", "positions": "sinusoidal"}, ("class",)),
    "class_positions": ("token", {"positions": "sinusoidal"}, ("class",)),
    "distillation": (
        "token_kd",
        {"erasing_masks": 0},  # same augmentation as the others, so that only the teacher differs
        ("mean", "class", "distillation", "concatenation"),
    ),
    # From the shipped model, frozen or trained further at a lower rate, or from scratch.
    "voice_phrase": ("voice_phrase", {}, PARTS),
    "voice_pair": ("voice_phrase", {"phrase_class": "speaker-phrase"}, PARTS),
    "tuned_phrase": ("voice_phrase", {"encoder_lr": 0.1}, PARTS),
    "tuned_kept": ("voice_phrase", {"encoder_lr": 0.1, "keep_weight": 10}, PARTS),
    "tuned_pair": ("voice_phrase", {"encoder_lr": 0.1, "phrase_class": "speaker-phrase"}, PARTS),
    "scratch_phrase": ("voice_phrase", {"encoder_lr": 1, "layer_decay": 1, "init_from": "null"}, PARTS),
}
# The layer after the attention of each block.
MEMORY = {
    "memory": {"memory_keys": 64, "feed_forward": 0},
    "none": {"memory_keys": 0, "feed_forward": 0},
    "feed_forward": {"memory_keys": 0, "feed_forward": 152},
}
RUNS = [
    f"{system}-{memory}"
    for memory in ("memory", "none")
    for system, (hparams, _, _) in SYSTEMS.items()
    if "positions" not in system and (hparams, memory) != ("voice_phrase", "memory")
]
RUNS += ["mean-feed_forward", "class-feed_forward", "mean_positions-memory", "class_positions-memory"]
# The types of non-target trials that are compared, and their names.
TYPES = {
    "target-wrong": "wrong phrase",
    "impostor-correct": "impostor",
    "impostor-wrong": "both wrong",
    "pooled": "pooled",
}
CLAIMS = {
    "class token over mean": ("class", "mean"),
    "class token over mean, sinusoidal positions": ("class_positions", "mean_positions"),
    "sinusoidal positions over none, class token": ("class_positions", "class"),
    "sampling (R = 4) over a single class token": ("sampled4", "class"),
    "sampling (R = 16) over a single class token": ("sampled16", "class"),
    "distillation token over none": ("distillation", "class"),
}


def budget(epochs: int) -> dict:
    """Return the options of training that all systems share."""
    return {
        "number_of_epochs": epochs,
        "batch_size": 64,
        "warmup_epochs": 1,
        "margin_start_epoch": 1,
        "margin_end_epoch": epochs // 2,
        "dev_speakers": 0,
        "cache_audio": True,
        "precision": "bf16",
    }


def run(system: str, memory: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Train one system with one seed, and verify it with each way to read its embedding."""
    corpus = {"data_folder": str(speech_corpus("arabic_speech_commands"))}
    hparams, options, embeddings = SYSTEMS[system]
    folder = arguments.output / f"{system}_{memory}_{seed}"
    shared = {**corpus, **MEMORY[memory]}
    training = {**shared, **options, **budget(arguments.epochs), "seed": seed}
    if embeddings == PARTS:
        training |= {"dev_speakers": 4}  # to calibrate the decisions on
    if system == "distillation":
        training["teacher_source"] = str(arguments.output / f"class_{memory}_{seed}")
    seconds = train(hparams, training, folder, "PhraseCorpus")
    row = {"system": system, "memory": memory, "seed": seed, "train_seconds": seconds, "embeddings": {}}
    if embeddings == PARTS:
        results = verify(folder, corpus, "verification_phrases", "PhraseCorpus")
        return row | {"parameters": results["n_parameters"], "embeddings": results["types"]}
    for embedding in embeddings:
        source = folder if len(embeddings) == 1 else with_embedding(folder, embedding)
        results = verify(source, corpus, "verification_phrases", "PhraseCorpus", f"verification_{embedding}")
        row["parameters"] = results["n_parameters"]
        row["embeddings"][embedding] = results["types"]["cosine"]
    return row


def with_embedding(folder: Path, embedding: str) -> Path:
    """Return a folder with the same model, but another way to read its two tokens."""
    other = folder / f"read_{embedding}"
    other.mkdir(exist_ok=True)
    text = (folder / "hyperparams.yaml").read_text(encoding="utf-8")
    (other / "hyperparams.yaml").write_text(re.sub(r"(?m)^( +embedding: ).*", rf"\g<1>{embedding}", text))
    if not (other / "save").exists():
        (other / "save").symlink_to(folder / "save")
    return other


def spread(values: list[float], digits: int = 2) -> str:
    """Return mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def print_systems(rows: list[dict]) -> None:
    """Print error rates by system."""
    print(
        "| system | memory | embedding | parameters | "
        + " | ".join(f"EER %, {name}" for name in TYPES.values())
        + " | minDCF, pooled | SdSV cost |"
    )
    print("|---" * (len(TYPES) + 6) + "|")
    for system in SYSTEMS:
        for memory in MEMORY:
            runs = [row for row in rows if (row["system"], row["memory"]) == (system, memory)]
            for embedding in SYSTEMS[system][2] if runs else ():
                tables = [row["embeddings"][embedding] for row in runs]
                cells = [spread([100 * table[kind]["eer"] for table in tables]) for kind in TYPES]
                cells.append(spread([table["pooled"]["min_dcf"] for table in tables], 3))
                cells.append(
                    spread([table["pooled without impostor-wrong"]["sdsv_cost"] for table in tables], 3)
                )
                name = embedding if len(SYSTEMS[system][2]) > 1 else ""
                print(f"| {system} | {memory} | {name} | {runs[0]['parameters']:,} | {' | '.join(cells)} |")


def print_claims(rows: list[dict]) -> None:
    """Print each claim's difference in EER, in points, seed by seed: negative is in its favour."""
    eers = {
        (row["system"], row["memory"], row["seed"]): {
            kind: 100 * row["embeddings"][SYSTEMS[row["system"]][2][0]][kind]["eer"] for kind in TYPES
        }
        for row in rows
    }
    comparisons = [
        (f"{claim}, {memory}", (new, memory), (old, memory))
        for claim, (new, old) in CLAIMS.items()
        for memory in MEMORY
    ]
    comparisons += [
        (f"memory over {other}, {system}", (system, "memory"), (system, other))
        for system in SYSTEMS
        for other in ("none", "feed_forward")
    ]
    print("| difference in EER, points | " + " | ".join(TYPES.values()) + " | better in |")
    print("|---" * (len(TYPES) + 2) + "|")
    for name, new, old in comparisons:
        seeds = sorted(seed for *key, seed in eers if tuple(key) == new and (*old, seed) in eers)
        if not seeds:
            continue
        differences = {kind: [eers[(*new, s)][kind] - eers[(*old, s)][kind] for s in seeds] for kind in TYPES}
        better = sum(value < 0 for value in differences["pooled"])
        cells = [spread(values) for values in differences.values()]
        print(f"| {name} | {' | '.join(cells)} | {better} of {len(seeds)} seeds, pooled |")


def main() -> None:
    """Train, verify, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, help="what to train, with each seed")
    parser.add_argument("--jobs", type=int, default=1, help="parallel trainings, one thread each")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "phrases")
    arguments = parser.parse_args()

    def run_chain(memory: str, seed: int) -> list[dict]:
        """Run the systems of one seed and memory in the order of SYSTEMS: the teacher before its student."""
        names = [name for name in SYSTEMS if f"{name}-{memory}" in arguments.runs]
        return [run(name, memory, seed, arguments) for name in names]

    with ThreadPoolExecutor(arguments.jobs) as pool:
        chains = itertools.product(MEMORY, arguments.seeds)
        rows = [row for chain in pool.map(lambda pair: run_chain(*pair), chains) for row in chain]
    machine = describe_machine(threads=1)
    report = {"machine": machine, "budget": budget(arguments.epochs), "runs": rows}
    (arguments.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{machine}\n")
    print_systems(rows)
    print()
    print_claims(rows)


if __name__ == "__main__":
    main()
