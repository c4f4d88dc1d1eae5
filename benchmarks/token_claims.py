#!/usr/bin/env python3
"""Compares the readouts of a token block with one budget, on the feature maps of the shipped encoder.

    python benchmarks/token_claims.py [--epochs 160] [--seeds 1 2 3] [--systems mean class ...]

Text-dependent: 18 training speakers of arabic_speech_commands (SPEECH_DATA), 12 other test speakers, 40 one-second
words. The encoder is frozen, so its maps are computed once and an epoch takes seconds. All systems have the same block,
data, steps and seeds and learn pairs of speaker and word ("phrase": only words); the last step is tested, so nothing is
selected. Phonetic positions are the frames of a "phrase" network that learnt the words of google_speech_commands.
Prints EER by type of trial, for the token alone and together with the encoder's own embedding, the differences that the
paper claims, seed by seed, and how they change with the number of epochs; writes results.json and epochs.png. Finished
runs are not repeated: run it again with other --epochs to see whether the error rate still falls.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from phrases import TYPES, spread
from recipe_runs import ROOT, SPEECH, describe_machine, speech_corpus
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import nn

from speechbrain_bccmt import VoicePhraseEmbedder
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.evaluation.trial_types import summarise_types
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.losses import TokenDistillationLoss
from speechbrain_bccmt.profiling import count_parameters
from speechbrain_bccmt.scoring import cosine_scores
from speechbrain_bccmt.training.augmentation import SpecAugment
from speechbrain_bccmt.training.schedules import linear_margin, warmup_cosine
from speechbrain_bccmt.trials.read import read_trials

CORPUS, WORDS = "arabic_speech_commands", "google_speech_commands"
# The rate was chosen on six of the training speakers (`token_rates.py`).
BATCH, LR, MARGIN, SCALE = 128, 0.012, 0.2, 30
PHONETIC_EPOCHS = 15
BASE = {"embedding_size": 192, "dropout": 0.1}
MEMORY = {"memory_keys": 64}
# As many parameters as the memory layer has.
FEED_FORWARD = {"feed_forward": 139}
TOKENS = {"readout": "class+distillation"}
PHONETIC = {"positions": "phonetic", "phonetic_size": 80}
# Options of the network, then of the training.
SYSTEMS = {
    "mean": ({"readout": "mean"}, {}),
    "class": ({}, {}),
    "phrase": ({}, {"learns": "phrase"}),
    "sampled, R = 4": ({"class_tokens": 4}, {}),
    "sampled, R = 16": ({"class_tokens": 16}, {}),
    "sampled, R = 64": ({"class_tokens": 64}, {}),
    "sampled, R = 16, a draw a batch": ({"class_tokens": 16}, {"draw": "batch"}),
    "distillation, frozen teacher": (TOKENS, {"teacher": "frozen"}),
    "distillation, frozen teacher, erasing": (TOKENS, {"teacher": "frozen", "erasing": True}),
    "distillation, teacher alongside": (TOKENS, {"teacher": "alongside"}),
    "distillation, teacher alongside, erasing": (TOKENS, {"teacher": "alongside", "erasing": True}),
    "mean, memory": ({"readout": "mean"} | MEMORY, {}),
    "class, memory": (MEMORY, {}),
    "class, memory of 16 keys, 4 of them read": ({"memory_keys": 16, "memory_top_k": 4}, {}),
    "class, memory, weight decay 1": (MEMORY, {"memory_decay": 1.0}),
    "class, feed-forward": (FEED_FORWARD, {}),
    "mean, no positions": ({"readout": "mean", "positions": "none"}, {}),
    "class, no positions": ({"positions": "none"}, {}),
    "mean, phonetic positions": ({"readout": "mean"} | PHONETIC, {"phonetic": True}),
    "class, phonetic positions": (PHONETIC, {"phonetic": True}),
}
CLAIMS = [
    ("class", "mean"),
    ("class, no positions", "mean, no positions"),
    ("class, phonetic positions", "mean, phonetic positions"),
    ("sampled, R = 4", "class"),
    ("sampled, R = 16", "class"),
    ("sampled, R = 64", "class"),
    ("sampled, R = 16, a draw a batch", "sampled, R = 16"),
    ("distillation, frozen teacher", "class"),
    ("distillation, teacher alongside", "class"),
    ("distillation, frozen teacher, erasing", "distillation, frozen teacher"),
    ("distillation, teacher alongside, erasing", "distillation, teacher alongside"),
    ("class, memory", "class"),
    ("mean, memory", "mean"),
    ("class, memory of 16 keys, 4 of them read", "class"),
    ("class, memory, weight decay 1", "class"),
    ("class, memory", "class, feed-forward"),
    ("class", "class, no positions"),
    ("mean", "mean, no positions"),
    ("class, phonetic positions", "class"),
    ("mean, phonetic positions", "mean"),
]


def feature_maps(corpus: str, folder: Path) -> tuple[list[str], torch.Tensor, np.ndarray]:
    """Return a corpus' utterances, and the shipped encoder's last feature maps (N, c, f, t) and embeddings (N, D)."""
    files = find_utterances([str(speech_corpus(corpus))])
    ids, kept = sorted(files), folder / f"{corpus}.npy"
    model = load_speaker_model("tiny")
    if not kept.is_file():
        found = []
        for start in range(0, len(ids), 64):
            waves = [read_mono(files[name].path, model.sample_rate) for name in ids[start : start + 64]]
            batch = torch.from_numpy(np.stack([np.resize(wave, model.sample_rate) for wave in waves]))
            with torch.inference_mode():
                features = model.mean_var_norm(model.compute_features(batch), torch.ones(len(batch)))
                found.append(model.embedding_model.feature_map(features)[0].half().numpy())
        np.save(kept, np.concatenate(found))
    maps = torch.from_numpy(np.load(kept)).float()
    with torch.inference_mode():
        voices = [model.embedding_model.embed_map(part)[:, 0] for part in maps.split(512)]
    return ids, maps, torch.cat(voices).numpy()


class Student(nn.Module):
    """The token block with its classifiers; `phonetic` lists the trained one whose frames are its positions."""

    def __init__(self, options: dict, n_classes: int, phonetic: Sequence[Student] = ()):
        super().__init__()
        self.phonetic = tuple(phonetic)  # not a submodule: it stays frozen
        self.model = VoicePhraseEmbedder(**BASE | options)
        tokens = 2 if options.get("readout") == TOKENS["readout"] else 1
        self.centres = nn.ParameterList(nn.Parameter(torch.randn(n_classes, 192)) for _ in range(tokens))

    def forward(self, maps: torch.Tensor, draw: str = "utterance") -> list[torch.Tensor]:
        """Embed with each token: (batch, 1, 192)."""
        tokens = self.model.tokens
        if self.training and draw == "batch":
            which = int(torch.randint(len(tokens.class_vectors), (1,)))
            frames, _ = self.model.sequence.from_map(maps)
            vector = tokens.class_vectors[which].expand(len(frames), 1, -1)
            x = torch.cat([vector, frames], dim=1)
            for block in self.model.blocks:
                x = block(x)[0]
            return [self.model.embedding_layers[0](self.model.norm(x[:, :1]))]
        heard = self.phonetic[0].frames(maps) if self.phonetic else None
        sequence = self.model.sequence.from_map(maps, phonetic=heard)
        first, second, _ = self.model.read_sequence(*sequence, [], False)
        return [first] if second is None else [first, second]

    @torch.no_grad()
    def frames(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the outputs for the frames after the class token: (batch, frames, channels)."""
        x = self.model.tokens(self.model.sequence.from_map(maps)[0])
        for block in self.model.blocks:
            x = block(x)[0]
        return self.model.norm(x)[:, self.model.tokens.count :]

    def cosines(self, embeddings: list[torch.Tensor]) -> list[torch.Tensor]:
        """Compare with the class centres: (batch, 1, classes) for each token."""
        return [
            nn.functional.normalize(one, dim=-1) @ nn.functional.normalize(centre, dim=-1).T
            for one, centre in zip(embeddings, self.centres, strict=True)
        ]

    def parameters_trained(self) -> list[nn.Parameter]:
        """Return the trained parameters: all but the encoder's."""
        encoder = {id(parameter) for parameter in self.model.encoder.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in encoder]

    def embed(self, maps: torch.Tensor) -> np.ndarray:
        """Embed at inference: the mean of the tokens' embeddings, (N, 192)."""
        self.eval()
        with torch.inference_mode():
            parts = [torch.stack(self(part)).mean(0)[:, 0] for part in maps.split(512)]
        return torch.cat(parts).numpy()

    def embed_by_others(self, maps: torch.Tensor) -> dict[str, np.ndarray]:
        """Embed with alternatives to the first vector of a sampled class token: (N, 192) each."""
        tokens = self.model.tokens
        learnt, found = tokens.class_vectors, []
        for vector in (learnt.detach().mean(0), *learnt.detach()):
            tokens.class_vectors = nn.Parameter(vector[None])
            found.append(self.embed(maps))
        tokens.class_vectors = learnt
        return {"mean vector": found[0], "mean of embeddings": np.mean(found[1:], axis=0)}


def train(
    system: str,
    seed: int,
    data,
    epochs: int,
    teacher: Student | None,
    phonetic: Sequence[Student] = (),
    rate: float = LR,
) -> tuple[Student, list[float]]:
    """Train one system; return it, and the mean loss of each epoch."""
    options, how = SYSTEMS[system]
    maps, labels = data
    torch.manual_seed(seed)
    student = Student(options, int(labels.max()) + 1, phonetic)
    trained = student.parameters_trained()
    alongside = how.get("teacher") == "alongside"
    if alongside:
        teacher = Student({}, int(labels.max()) + 1)
        trained = trained + teacher.parameters_trained()
    memory = [weight for name, weight in student.named_parameters() if ".memory." in name]
    others = [weight for weight in trained if not any(weight is one for one in memory)]
    groups = [{"params": others}, {"params": memory, "weight_decay": how.get("memory_decay", 0.01)}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    mask = SpecAugment(time_masks=1, time_width=4, frequency_masks=2, frequency_width=20)
    erase = SpecAugment(time_masks=2, time_width=4, frequency_masks=2, frequency_width=40)
    imitate = TokenDistillationLoss(teacher_scale=SCALE, student_scale=SCALE)
    steps, step, losses = epochs * (len(maps) // BATCH), 0, []
    student.train()
    for _ in range(epochs):
        total, order = 0.0, torch.randperm(len(maps))
        for start in range(0, len(maps) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            seen = _masked(maps[rows], mask)
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, steps, 100, rate, 1e-5)
            margin = linear_margin(step / steps, 0.0, 0.4, MARGIN)
            cost = LogSoftmaxWrapper(AdditiveAngularMargin(margin, SCALE))
            own = student(_masked(seen, erase) if how.get("erasing") else seen, how.get("draw", "utterance"))
            cosines = student.cosines(own)
            loss = cost(cosines[0], labels[rows, None])
            total += loss.item()
            if teacher is not None:
                with torch.set_grad_enabled(alongside):
                    (expected,) = teacher.train(alongside).cosines(teacher(seen))
                loss = loss + imitate(cosines[1], expected.detach())
                if alongside:
                    loss = loss + cost(expected, labels[rows, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        losses.append(total / (len(maps) // BATCH))
    return student, losses


def _masked(maps: torch.Tensor, mask: SpecAugment) -> torch.Tensor:
    flat = maps.flatten(1, 2).transpose(1, 2)
    return mask.train()(flat).transpose(1, 2).unflatten(1, maps.shape[1:3])


def words_of(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps and words of the corpus that a phonetic network learns."""
    ids, maps, _ = feature_maps(WORDS, folder)
    return maps, torch.tensor(np.unique([name.split("/")[1] for name in ids], return_inverse=True)[1])


def trial_table(embeddings: np.ndarray, ids: list[str], trials) -> dict:
    """Return the error rates by type of trial."""
    place = {name: row for row, name in enumerate(ids)}
    own = embeddings[[place[name] for name in trials.ids]]
    scores = np.asarray(cosine_scores(own, trials.enrol, trials.test, trials.models))
    return summarise_types(scores, trials.trial_type, trials.trial_types)


def main() -> None:
    """Train, verify, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "token_claims")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ids, maps, voices = feature_maps(CORPUS, options.output)
    meta = SPEECH / CORPUS / "meta"
    trials = read_trials(meta / "trials.txt", enrolment=meta / "model_enrollment.txt")
    tested = {name.split("/")[0] for name in trials.ids}
    own = [row for row, name in enumerate(ids) if name.split("/")[0] not in tested]
    said = {
        "pair": [ids[row].rsplit("/", 1)[0] for row in own],
        "phrase": [ids[row].split("/")[1] for row in own],
    }
    data = {
        kind: (maps[own], torch.tensor(np.unique(names, return_inverse=True)[1]))
        for kind, names in said.items()
    }
    test = [row for row, name in enumerate(ids) if name.split("/")[0] in tested]
    tested_maps, voices, ids = maps[test], voices[test], [ids[row] for row in test]
    print("the encoder's own embedding:", _percent(trial_table(voices, ids, trials)))
    kept = options.output / f"runs_{options.epochs}.json"
    runs = json.loads(kept.read_text()) if kept.is_file() else {}
    for seed in options.seeds:
        teacher, phonetic = None, None
        for system in options.systems:
            key = f"{system} / {seed}"
            if key in runs:
                continue
            frozen = SYSTEMS[system][1].get("teacher") == "frozen"
            if frozen and teacher is None:
                teacher = train("class", seed, data["pair"], options.epochs, None)[0]
            started = time.monotonic()
            learns = data[SYSTEMS[system][1].get("learns", "pair")]
            hears = SYSTEMS[system][1].get("phonetic")
            if hears and phonetic is None:
                phonetic = [train("phrase", seed, words_of(options.output), PHONETIC_EPOCHS, None)[0].eval()]
            given = teacher if frozen else None, phonetic if hears else ()
            student, losses = train(system, seed, learns, options.epochs, *given)
            if system == "class":
                teacher = student  # or the same would be trained again
            tokens = student.embed(tested_maps)
            weight = student.model.phrase_weight**0.5
            both = np.concatenate([_unit(voices), weight * _unit(tokens)], axis=1)
            encoder = student.model.encoder
            runs[key] = {
                "seconds": round(time.monotonic() - started),
                "losses": losses,
                "parameters": count_parameters(student.model) - count_parameters(encoder),
                "types": trial_table(tokens, ids, trials),
                "with voice": trial_table(both, ids, trials),
            }
            if SYSTEMS[system][0].get("class_tokens", 1) > 1:
                others = student.embed_by_others(tested_maps)
                runs[key] |= {way: trial_table(vectors, ids, trials) for way, vectors in others.items()}
            kept.write_text(json.dumps(runs) + "\n")
            print(
                f"{key}: {_percent(runs[key]['types'])}, with voice {_percent(runs[key]['with voice'])}",
                flush=True,
            )
    machine = describe_machine(threads=1)
    (options.output / "results.json").write_text(
        json.dumps({"machine": machine, "runs": runs}, indent=2) + "\n"
    )
    print(f"\n{machine}\n")
    print_systems(runs, options.seeds)
    print_sampled(runs, options.seeds)
    print_claims(runs, options.seeds)
    show_epochs(options.output)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _percent(types: dict) -> str:
    return ", ".join(f"{name} {100 * types[kind]['eer']:.2f} %" for kind, name in TYPES.items())


def print_systems(runs: dict, seeds: list[int]) -> None:
    """Print the error rates of each system."""
    print("| EER, % | parameters | " + " | ".join(TYPES.values()) + " | pooled, with voice |")
    print("|---" * (len(TYPES) + 3) + "|")
    for system, found in _by_system(runs, seeds):
        scored = [("types", kind) for kind in TYPES] + [("with voice", "pooled")]
        cells = [spread([100 * run[way][kind]["eer"] for run in found]) for way, kind in scored]
        print(f"| {system} | {found[0]['parameters']:,} | {' | '.join(cells)} |")


def print_sampled(runs: dict, seeds: list[int]) -> None:
    """Print the error rates of the sampled tokens by what embeds at inference."""
    print("\n| pooled EER, % | one vector | mean vector | mean of embeddings |\n|---|---|---|---|")
    for system, found in _by_system(runs, seeds):
        if all("mean vector" in run for run in found):
            ways = ("types", "mean vector", "mean of embeddings")
            cells = [spread([100 * run[way]["pooled"]["eer"] for run in found]) for way in ways]
            print(f"| {system} | {' | '.join(cells)} |")


def print_claims(runs: dict, seeds: list[int]) -> None:
    """Print the differences of the claims, seed by seed, and whether the seeds agree."""
    columns = "token alone, by seed | mean | | with voice, by seed | mean |"
    print(f"\n| pooled EER, points | {columns} |\n|---|---|---|---|---|---|---|")
    for new, old in CLAIMS:
        keys = [(f"{new} / {seed}", f"{old} / {seed}") for seed in seeds]
        pairs = [(runs[a], runs[b]) for a, b in keys if a in runs and b in runs]
        cells = []
        for way in ("types", "with voice") if pairs else ():
            differences = [100 * (a[way]["pooled"]["eer"] - b[way]["pooled"]["eer"]) for a, b in pairs]
            by_seed = ", ".join(f"{value:+.2f}" for value in differences)
            better, worse = max(differences) < 0, min(differences) > 0
            verdict = "better" if better else "worse" if worse else "cannot be told"
            cells += [by_seed, spread(differences), verdict]
        if cells:
            print(f"| {new} over {old} | {' | '.join(cells)} |")


def show_epochs(folder: Path) -> None:
    """Print and draw the pooled error rates of all runs that were made with several numbers of epochs."""
    budgets = {int(path.stem[5:]): json.loads(path.read_text()) for path in folder.glob("runs_*.json")}
    epochs = sorted(budgets)
    print(f"\n| pooled EER, %, alone and with voice | {' | '.join(map(str, epochs))} |")
    print("|---" * (len(epochs) + 1) + "|")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="epochs", ylabel="pooled EER, %")
    for key in sorted(set().union(*budgets.values())):
        ran = [count for count in epochs if key in budgets[count]]
        if len(ran) < 3:
            continue
        alone, voice = (
            {count: 100 * budgets[count][key][way]["pooled"]["eer"] for count in ran}
            for way in ("types", "with voice")
        )
        cells = [f"{alone[count]:.2f}, {voice[count]:.2f}" if count in ran else "" for count in epochs]
        print(f"| {key} | {' | '.join(cells)} |")
        (line,) = axes.plot(ran, list(alone.values()), marker=".", label=key)
        axes.plot(ran, list(voice.values()), marker=".", linestyle=":", color=line.get_color())
    axes.set_xticks(epochs, map(str, epochs))
    axes.minorticks_off()
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend(title="system / seed; dotted: with voice", fontsize=8)
    save_figure(figure, folder / "epochs.png")


def _by_system(runs: dict, seeds: list[int]) -> list[tuple[str, list[dict]]]:
    found = {system: [runs.get(f"{system} / {seed}") for seed in seeds] for system in SYSTEMS}
    return [(system, [run for run in ran if run]) for system, ran in found.items() if any(ran)]


if __name__ == "__main__":
    main()
