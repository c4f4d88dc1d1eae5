"""The demo's report: one table, its JSON and Markdown, and the pictures."""

from __future__ import annotations

import csv
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from speechbrain_bccmt.attention.plots import draw_attention_maps
from speechbrain_bccmt.evaluation.plots import plot_det
from speechbrain_bccmt.features import sample_rate
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.files import write_together
from speechbrain_bccmt.inference.embedding import read_utterance
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.losses import AttentionMapLoss, match_blocks
from speechbrain_bccmt.profiling import FRAMES_PER_SECOND, count_macs, count_parameters, latency_ms

# Utterances whose maps are compared with the teacher's: enough for a stable mean, in a few seconds.
COMPARED_UTTERANCES = 40


@dataclass(frozen=True)
class System:
    """A model that the demo trains: its YAML, size, teacher and default number of epochs."""

    name: str
    title: str
    training: str
    size: str
    epochs: int
    teacher: str | None = None


SHIPPED = "shipped", "Tiny, shipped"
SYSTEMS = (
    System("base", "Base (teacher)", "bccmt", "base", epochs=5),
    System("tiny", "Tiny", "bccmt", "tiny", epochs=6),
    System("tiny_kd", "Tiny + KD", "bccmt_tiny_kd", "tiny", epochs=6, teacher="base"),
)
COLUMNS = {
    "title": "system",
    "parameters": "parameters",
    "mmacs": "MMACs at 1 s",
    "eer": "EER %",
    "min_dcf": "minDCF",
    "cpu_ms": "CPU ms at 1 s",
    "map_divergence": "map divergence",
    "epochs": "epochs",
    "train_seconds": "training s",
}


def make_report(output: Path, epochs: dict[str, int], seconds: dict[str, float]) -> None:
    """Measure the trained systems, print the table, and write results.json, results.md and the pictures.

    Parameters
    ----------
    output : Path
        The demo's folder, with a training and a verification folder for each system.
    epochs, seconds : dict
        Length of each system's training, by name.
    """
    models = {system.name: load_speaker_model(output / system.name).modules for system in SYSTEMS}
    divergences = _compare_maps(output, models)
    models["shipped"] = load_speaker_model().modules
    titles = dict([SHIPPED, *((system.name, system.title) for system in SYSTEMS)])
    rows = []
    for name, title in titles.items():
        model = models[name]["embedding_model"]
        found = read_results(output, name)
        rows.append(
            {
                "title": title,
                "parameters": count_parameters(model),
                "mmacs": round(count_macs(model) / 1e6, 2),
                "eer": round(100 * found["scores"]["cosine"]["eer"], 2),
                "min_dcf": round(found["scores"]["cosine"]["min_dcf"], 3),
                "cpu_ms": round(latency_ms(model), 1),
                "map_divergence": divergences.get(name),
                "epochs": epochs.get(name),
                "train_seconds": round(seconds[name]) if name in seconds else None,
            }
        )
    scores = {title: _read_scores(output, name) for name, title in titles.items()}
    plot_det(scores, output / "det.png", title="Demo corpus, held-out speakers")
    print("\n" + _table(rows, plain=True) + "\n\n" + _notes(found) + "\n")
    results = {
        "systems": rows,
        "frames_at_1_s": FRAMES_PER_SECOND,
        "trials": found["n_trials"],
        "cpu": _cpu(),
    }
    markdown = f"# Demo\n\n{_table(rows)}\n\n{_notes(found)}\n\n{_pictures()}\n"
    write_together(
        {output / "results.md": markdown}, output / "results.json", json.dumps(results, indent=2) + "\n"
    )
    print(f"Table and pictures: {output / 'results.md'}")


def read_results(output: Path, name: str) -> dict:
    """Read the verification results of a system."""
    return json.loads((output / f"verification_{name}" / "results.json").read_text(encoding="utf-8"))


@torch.inference_mode()
def _maps(modules: dict[str, torch.nn.Module], row: dict) -> list[torch.Tensor]:
    """Return the attention maps of one utterance, one per block."""
    wav = read_utterance(row, sample_rate(modules["compute_features"]))
    features = modules["compute_features"](wav.reshape(1, -1))
    features = modules["mean_var_norm"](features, torch.ones(1))
    return modules["embedding_model"].forward_with_attention(features)[1]


def _compare_maps(output: Path, models: dict[str, dict]) -> dict[str, float]:
    """Plot the maps of one test utterance, and return each Tiny's mean divergence from the teacher."""
    with open(output / "verification_base" / "save" / "test.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(1, len(rows) // COMPARED_UTTERANCES)][:COMPARED_UTTERANCES]
    teacher = models["base"]["embedding_model"]
    pairs = match_blocks(models["tiny"]["embedding_model"].depths, teacher.depths)
    loss = AttentionMapLoss(pairs)
    sums = {"tiny": 0.0, "tiny_kd": 0.0}
    torch.set_num_threads(1)  # more are slower at this size, and a hundred times slower on a busy machine
    for row in tqdm(rows, desc="attention maps", unit="utt"):
        maps = {name: _maps(modules, row) for name, modules in models.items()}
        for name in sums:
            sums[name] += float(loss(maps[name], maps["base"]))
        if row is rows[0]:
            blocks = {
                system.title: [maps[system.name][pair[system.name == "base"]] for pair in pairs]
                for system in SYSTEMS
            }
            figure = draw_attention_maps(
                blocks,
                seconds=float(row["duration"]),
                row_titles=[f"block {student + 1}" for student, _ in pairs],
                title=f"{row['ID']}, blocks that the distillation matches, mean of heads",
            )
            save_figure(figure, output / "attention_maps.png")
    return {name: float(f"{value / len(rows):.3g}") for name, value in sums.items()}


def _read_scores(output: Path, name: str) -> tuple[list[float], list[float]]:
    """Return the scores of target and non-target trials."""
    text = (output / f"verification_{name}" / "scores.txt").read_text(encoding="utf-8")
    trials = [line.split() for line in text.splitlines()]
    return tuple([float(score) for _, _, label, score in trials if label == kind] for kind in "10")


def _table(rows: list[dict], plain: bool = False) -> str:
    """Format the rows as a Markdown table, or as plain text."""
    cells = [list(COLUMNS.values())]
    cells += [["" if row[key] is None else _cell(row[key]) for key in COLUMNS] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    left = [True] + [False] * (len(widths) - 1)
    lines = []
    for line in cells:
        padded = (
            text.ljust(width) if to_left else text.rjust(width)
            for text, width, to_left in zip(line, widths, left, strict=True)
        )
        lines.append("  ".join(padded) if plain else "| " + " | ".join(padded) + " |")
    rule = "  ".join("-" * width for width in widths)
    marks = (
        "-" * width if to_left else "-" * (width - 1) + ":"
        for width, to_left in zip(widths, left, strict=True)
    )
    lines.insert(1, rule if plain else "| " + " | ".join(marks) + " |")
    return "\n".join(lines)


def _cell(value: str | int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _notes(found: dict) -> str:
    """Describe how the figures were measured."""
    return (
        f"{found['n_trials']:,} trials of {found['n_utterances']} utterances of held-out synthetic speakers, "
        f"cosine scores.\nCPU: one thread, batch of one, {FRAMES_PER_SECOND} frames, encoder only, median of "
        f"50 runs, on {_cpu()}.\nMap divergence: mean KL(teacher || student) of the attention maps of "
        f"{COMPARED_UTTERANCES} test utterances, in nats.\n"
        "One seed, minutes of training and synthetic voices: differences of a few tenths of EER are chance."
    )


def _cpu() -> str:
    """Return the name of the processor and its number of cores."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), None)
    return f"{name or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _pictures() -> str:
    """List the pictures in Markdown."""
    pictures = [
        "## Attention maps",
        "![attention maps](attention_maps.png)",
        "## Error trade-off",
        "![DET](det.png)",
    ]
    for heading, place in (
        ("Training", "{}/training_curves.png"),
        ("Scores", "verification_{}/score_histogram.png"),
    ):
        pictures.append(f"## {heading}")
        pictures += [
            f"{system.title}\n\n![{system.title}]({place.format(system.name)})" for system in SYSTEMS
        ]
    return "\n\n".join(pictures)
