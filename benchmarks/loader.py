#!/usr/bin/env python3
"""Crops per second delivered by the data loader, against those consumed by the networks.

    python benchmarks/loader.py [--formats wav flac opus] [--workers 0 1 2] [--utterances 2000] [--device cuda]
        [--parts loader cold network] [--drop-caches]

`loader`: speech of speechocean762 in SPEECH_DATA, decoded and rewritten in each format, read from its files and from
shards (`bccmt shards`), in crops of 2 s and batches of 64, with the recipe's noise and reverberation or without;
nothing else runs. One epoch is read first to bring the files into memory.

`cold`: the same, without augmentation, for an epoch whose files are not in memory. Their pages are dropped by
posix_fadvise, or those of the whole machine, directory entries included, by --drop-caches (root; Linux).

`network`: training steps of Tiny, of Base, and of Tiny distilled from Base, features and losses included, on noise, in
float32 and, on a GPU, bfloat16. Hours per epoch are for VoxCeleb2's 1,092,009 utterances, one crop each.

Prints tables and writes results/loader.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from recipe_runs import ROOT, SPEECH, describe_machine, speech_corpus
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.processing.features import InputNormalization
from torch.utils.data import DataLoader, RandomSampler

from speechbrain_bccmt import bccmt
from speechbrain_bccmt.audio import members
from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.shards import write_shards
from speechbrain_bccmt.features import build_front_end
from speechbrain_bccmt.losses import AttentionMapLoss, match_blocks
from speechbrain_bccmt.training.augmentation import SpecAugment, WaveformAugmentation
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.training.shards import ShardOrder, place_in_shards

RATE, SEED, CROP, BATCH = 16000, 1986, 2.0, 64
VOXCELEB2 = 1_092_009
FORMATS = {"wav": {}, "flac": {}, "opus": {"format": "OGG", "subtype": "OPUS"}}


def write_corpus(folder: Path, ending: str, count: int) -> list[dict]:
    """Write utterances in a format; return rows of train.csv."""
    files = find_recordings(speech_corpus("speechocean762") / "wav")
    chosen = np.random.default_rng(SEED).permutation(len(files))[:count]
    rows = []
    for number in chosen:
        source = Path(files[number])
        name = source.relative_to(SPEECH / "speechocean762" / "wav").with_suffix("").as_posix()
        target = folder / f"{name}.{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        wav = read_mono(source, RATE)
        soundfile.write(target, wav, RATE, **FORMATS[ending])
        fields = {"start": "0", "stop": str(soundfile.info(target).frames), "sample_rate": str(RATE)}
        rows.append({"ID": name, "wav": str(target), "spk_id": name.split("/")[0]} | fields)
    return rows


def open_loader(rows: list[dict], shards: Path | None, workers: int, augment, folder: Path) -> DataLoader:
    """Return the loader of the recipe, over files in random order or over shards in sequence."""
    data = {row["ID"]: dict(row) for row in rows}
    if shards is not None:
        place_in_shards(data, shards)
    crops = TrainingCrops(data, folder / "labels.txt", CROP, RATE, augment, seed=SEED)
    crops.set_epoch(1)
    sampler = RandomSampler(crops)
    if shards is not None:
        sampler = ShardOrder([crops.data[name]["wav"] for name in crops.data_ids], 1000, SEED)
    return DataLoader(crops, BATCH, sampler=sampler, num_workers=workers, collate_fn=PaddedBatch, drop_last=True)


def run_epoch(loader: DataLoader) -> tuple[float, float]:
    """Read an epoch; return crops per second, and per processor second."""
    before, begun, count = _cpu_seconds(), time.perf_counter(), 0
    for batch in loader:
        count += len(batch)
    del batch
    return count / (time.perf_counter() - begun), count / (_cpu_seconds() - before)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def forget(folder: Path, everything: bool) -> None:
    """Drop the system's cache of the files in a folder, or of everything."""
    os.sync()
    if everything:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure_loader(options: argparse.Namespace) -> list[dict]:
    """Measure the parts `loader` and `cold`."""
    augment = WaveformAugmentation(
        SPEECH / "noise", SPEECH / "rir", noise_probability=0.6, reverb_probability=0.4, sample_rate=RATE
    )
    results = []
    for ending in options.formats:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            rows = write_corpus(folder / "files", ending, options.utterances)
            write_shards(rows, folder / "shards", 64e6, progress=False)
            for source, shards in (("files", None), ("shards", folder / "shards")):
                megabytes = sum(path.stat().st_size for path in (folder / source).rglob("*") if path.is_file()) / 1e6
                about = {"format": ending, "source": source, "mb": megabytes}
                if "cold" in options.parts:
                    for workers in options.workers[:2]:
                        loader = open_loader(rows, shards, workers, None, folder)
                        members._descriptor.cache_clear()
                        forget(folder, options.drop_caches)
                        begun = time.perf_counter()
                        found = run_epoch(loader)
                        row = about | {"part": "cold", "workers": workers, "augmented": False, "crops": found}
                        results.append(row | {"epoch_s": time.perf_counter() - begun})
                        print(show_loader(results[-1]), flush=True)
                if "loader" not in options.parts:
                    continue
                for augmented in (False, True):
                    for workers in options.workers:
                        loader = open_loader(rows, shards, workers, augment if augmented else None, folder)
                        run_epoch(loader)
                        found = max(run_epoch(loader) for _ in range(options.repeats))
                        row = about | {"part": "loader", "workers": workers, "augmented": augmented}
                        results.append(row | {"crops": found})
                        print(show_loader(results[-1]), flush=True)
    return results


def show_loader(row: dict) -> str:
    """Return a row of the table."""
    wall, cpu = row["crops"]
    augmented = "yes" if row["augmented"] else ""
    cells = [row["part"], row["format"], row["source"], str(row["workers"]), augmented]
    return f"| {' | '.join(cells)} | {wall:,.0f} | {cpu:,.0f} | {VOXCELEB2 / wall / 3600:.2f} |"


class Step:
    """A training step of the recipe: features, masks, network, losses, gradients, optimiser."""

    def __init__(self, system: str, device: str, half: bool):
        self.device, self.half = torch.device(device), half
        size = "base" if system == "base" else "tiny"
        self.features, self.norm = build_front_end("speechbrain").to(device), InputNormalization("sentence", False)
        self.masks = SpecAugment().to(device)
        self.network = bccmt(size).to(device).train()
        self.teacher = bccmt("base").to(device).eval().requires_grad_(False) if system == "distilled" else None
        self.classes = torch.nn.Parameter(torch.randn(5994, 192, device=device))
        self.cost = LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30))
        self.maps = AttentionMapLoss().to(device)
        if self.teacher is not None:
            self.maps.pairs = match_blocks(self.network.depths, self.teacher.depths)
        self.optimiser = torch.optim.AdamW([*self.network.parameters(), self.classes], 1e-3, fused=True)

    def __call__(self, waves: torch.Tensor, labels: torch.Tensor) -> None:
        """Train on a batch (batch, samples)."""
        lengths = torch.ones(len(waves), device=self.device)
        with torch.no_grad():
            features = self.masks(self.norm(self.features(waves), lengths))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self.teacher is None:
                embeddings, distance = self.network(features, lengths), 0.0
            else:
                with torch.no_grad():
                    _, expected = self.teacher.forward_with_attention(features, lengths)
                embeddings, maps = self.network.forward_with_attention(features, lengths)
                distance = self.maps(maps, expected, lengths)
        embeddings = torch.nn.functional.normalize(embeddings.float().squeeze(1))
        cosines = embeddings @ torch.nn.functional.normalize(self.classes).T
        (self.cost(cosines.unsqueeze(1), labels) + distance).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def measure_network(options: argparse.Namespace) -> list[dict]:
    """Measure the part `network`."""
    cuda = options.device.startswith("cuda")
    results = []
    for system in ("tiny", "base", "distilled"):
        for half in (False, True) if cuda else (False,):
            batch = options.network_batch or (512 if cuda else 32)
            step = Step(system, options.device, half)
            waves = 0.1 * torch.randn(batch, int(CROP * RATE), device=options.device)
            labels = torch.randint(5994, (batch, 1), device=options.device)
            synchronise = torch.cuda.synchronize if cuda else lambda: None
            for _ in range(3):
                step(waves, labels)
            synchronise()
            steps, begun, cpu = 0, time.perf_counter(), _cpu_seconds()
            while time.perf_counter() - begun < options.seconds:
                step(waves, labels)
                steps += 1
                synchronise()
            wall, used = time.perf_counter() - begun, _cpu_seconds() - cpu
            row = {"part": "network", "system": system, "precision": "bf16" if half else "fp32", "batch": batch}
            row["crops"] = [steps * batch / wall, steps * batch / used]
            results.append(row)
            hours = VOXCELEB2 / row["crops"][0] / 3600
            cells = [system, row["precision"], batch, f"{row['crops'][0]:,.0f}", f"{row['crops'][1]:,.0f}"]
            print(f"| {' | '.join(map(str, cells))} | {hours:.2f} |", flush=True)
    return results


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ["loader", "cold", "network"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--utterances", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2, help="epochs, of which the best counts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network-batch", type=int)
    parser.add_argument("--seconds", type=float, default=15.0, help="measuring time per network")
    parser.add_argument("--drop-caches", action="store_true")
    parser.add_argument("--folder", type=Path, help="folder for the temporary files")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "loader.json")
    options = parser.parse_args()
    torch.set_num_threads(1)

    machine, load = describe_machine(1), os.getloadavg()[0]
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "the CPU"
    print(f"{machine}; networks on {device}; load {load:.1f} at the start; crops of {CROP:g} s, seed {SEED}\n")
    results = []
    if {"loader", "cold"} & set(options.parts):
        print("| part | format | source | workers | augmented | crops/s | crops/core-s | h an epoch of VoxCeleb2 |")
        print("|---" * 8 + "|")
        results += measure_loader(options)
    if "network" in options.parts:
        print("\n| network | precision | batch | crops/s | crops/core-s | h an epoch of VoxCeleb2 |")
        print("|---" * 6 + "|")
        results += measure_network(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "device": device, "load": [load, os.getloadavg()[0]], "rows": results}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
