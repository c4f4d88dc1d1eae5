#!/usr/bin/env python3
"""Times waveform to embedding, beside SpeechBrain's own extractors and Resemblyzer, in one run.

    python benchmarks/latency.py [--threads 1 2] [--seconds 1 3 10] [--device cpu]

Each system runs in a process of its own, which tells its cold start (start of the program to the first embedding of
1 s) and its peak memory as well. Weights are random: they have no part in the time. Prints tables and writes
results/latency/results.json. Resemblyzer is left out where it is not installed (pip install resemblyzer).
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

RATE = 16000
FRAMES_PER_SECOND = 100
REFERENCE = "ecapa"
# (name, seconds of audio) of the published CPU and GPU times of the modified Tiny, TASLP 32 (2024).
PUBLISHED = {"CPU": (29.07, 146.32), "GPU": (36.01, 206.43)}
SYSTEMS = {
    "tiny": "BC-CMT Tiny, PyTorch",
    "tiny_onnx": "BC-CMT Tiny, ONNX",
    "tiny_int8": "BC-CMT Tiny, ONNX int8",
    "small": "BC-CMT Small, PyTorch",
    "small_onnx": "BC-CMT Small, ONNX",
    "base": "BC-CMT Base, PyTorch",
    "base_onnx": "BC-CMT Base, ONNX",
    "ecapa": "ECAPA-TDNN (SpeechBrain)",
    "xvector": "x-vector (SpeechBrain)",
    "resnet": "ResNet-TDNN (SpeechBrain)",
    "resemblyzer": "Resemblyzer",
}
MEASURED_GROWTH = ("tiny", "tiny_onnx")  # also at 60 s
# Timed passes of one length: until this many seconds are over, within these bounds.
SECONDS_PER_LENGTH, FEWEST, MOST = 1.5, 5, 100


def build(name: str):
    """Build an extractor as its recipe does, with random weights; give it with its number of log-mel bands."""
    import torch

    torch.manual_seed(0)
    if name in ("tiny", "small", "base"):
        import speechbrain_bccmt

        return getattr(speechbrain_bccmt, f"bccmt_{name}")(), 80
    if name == "ecapa":
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        widths = {"channels": [1024] * 4 + [3072], "kernel_sizes": [5, 3, 3, 3, 1]}
        return ECAPA_TDNN(
            80, **widths, dilations=[1, 2, 3, 4, 1], attention_channels=128, lin_neurons=192
        ), 80
    if name == "xvector":
        from speechbrain.lobes.models.Xvector import Xvector

        return Xvector(in_channels=24), 24
    from speechbrain.lobes.models.ResNet import ResNet

    return ResNet(input_size=80), 80


def extractor(name: str, threads: int, device: str, folder: Path):
    """Give a function from waveform, (samples,) float32 in [-1, 1], to embedding."""
    import numpy as np

    if name.endswith(("onnx", "int8")):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=providers)
        return lambda wav: session.run(None, {"waveform": wav[None]})[0]

    import torch

    torch.set_num_threads(threads)
    if name == "resemblyzer":
        from resemblyzer import VoiceEncoder

        return VoiceEncoder(device, verbose=False).embed_utterance

    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    model, n_mels = build(name)
    front_end, norm = Fbank(n_mels=n_mels), InputNormalization(norm_type="sentence", std_norm=False)
    front_end, norm, model = (module.to(device).eval() for module in (front_end, norm, model))
    whole = torch.ones(1, device=device)

    @torch.inference_mode()
    def embed(wav: np.ndarray):
        wavs = torch.from_numpy(wav[None]).to(device)
        return model(norm(front_end(wavs), whole), whole).cpu()

    return embed


def measure(name: str, threads: int, lengths: list[int], device: str, folder: Path) -> dict:
    """Measure one system, in this process."""
    import numpy as np

    rng = np.random.default_rng(0)

    def wav(seconds: int):
        return (0.1 * rng.standard_normal(seconds * RATE)).astype(np.float32)

    embed = extractor(name, threads, device, folder)
    embed(wav(1))
    found = {"cold_start_s": time.time() - float(os.environ["STARTED"]), "ms": {}}
    for seconds in lengths:
        audio, times = wav(seconds), []
        for _ in range(2):
            embed(audio)
        start = time.perf_counter()
        while len(times) < FEWEST or (len(times) < MOST and time.perf_counter() - start < SECONDS_PER_LENGTH):
            before = time.perf_counter()
            embed(audio)
            times.append(1000 * (time.perf_counter() - before))
        found["ms"][seconds] = statistics.median(times)
    found["peak_mb"] = peak_megabytes()
    return found


def peak_megabytes() -> float:
    """Tell the largest memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux includes the program that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 if sys.platform != "darwin" else 1024**2)


def matmul_rate(threads: int) -> float:
    """Measure how many multiply-accumulates a second this CPU does in products of 512 x 512 matrices."""
    import torch

    torch.set_num_threads(threads)
    one, other = torch.randn(2, 512, 512)
    times = []
    for _ in range(60):
        before = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - before)
    return 512**3 / statistics.median(times)


def sizes(lengths: list[int]) -> dict:
    """Count parameters, and MACs at each length, of what can be built here."""
    from speechbrain_bccmt.profiling import count_macs, count_parameters

    found = {}
    for name in ("tiny", "small", "base", "ecapa", "xvector", "resnet"):
        model, n_mels = build(name)
        macs = {s: count_macs(model, frames=s * FRAMES_PER_SECOND, n_mels=n_mels) for s in lengths}
        found[name] = {"parameters": count_parameters(model), "macs": macs}
    return found


def export(folder: Path) -> None:
    """Write the ONNX files, waveform to embedding; int8 is calibrated on noise here, as only time counts."""
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    from speechbrain_bccmt.export.onnx import export_onnx
    from speechbrain_bccmt.export.quantise import quantise_static
    from speechbrain_bccmt.export.source import SpeakerModel

    for name in ("tiny", "small", "base"):
        norm = InputNormalization(norm_type="sentence", std_norm=False)
        model = SpeakerModel(Fbank(n_mels=80).eval(), norm.eval(), build(name)[0].eval())
        export_onnx(model, folder / f"{name}_onnx.onnx", graph="waveform")
    noise = [0.1 * torch.randn(1, 3 * RATE).numpy() for _ in range(8)]
    quantise_static(folder / "tiny_onnx.onnx", folder / "tiny_int8.onnx", noise)


def run_child(arguments: list[str], threads: int) -> dict | None:
    """Run this script again with other arguments; give what it printed, or None where a package is missing."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["STARTED"] = str(
        time.time()
    )  # imports, and the interpreter's own start, belong to a cold start
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "No module named" not in last:
            raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr}")
        print(f"left out: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(found: dict, sizes_of: dict, rate: float, lengths: list[int], threads: int) -> str:
    """Lay out one number of threads as a Markdown table."""
    reference = found[REFERENCE]["ms"]
    heads = [f"{s} s, ms" for s in lengths] + [f"ECAPA / it, {s} s" for s in lengths]
    heads = ["system", "parameters", "MMACs, 3 s", *heads, "peak MB", "cold start, s", "time / MAC time, 3 s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in found.items():
        size = sizes_of.get(name.split("_")[0], {})
        macs = size.get("macs", {}).get("3")
        cells = [
            SYSTEMS[name],
            f"{size['parameters']:,}" if size else "",
            f"{macs / 1e6:,.0f}" if macs else "",
        ]
        cells += [f"{row['ms'][str(s)]:.1f}" for s in lengths]
        cells += [f"{reference[str(s)] / row['ms'][str(s)]:.1f}" for s in lengths]
        bound = f"{row['ms']['3'] / (1000 * macs / rate):.1f}" if macs and "3" in row["ms"] else ""
        cells += [f"{row['peak_mb']:.0f}", f"{row['cold_start_s']:.1f}", bound]
        lines.append("| " + " | ".join(cells) + " |")
    title = f"{threads} thread(s), {rate / 1e9:.0f} GMAC/s in matrix products of 512 x 512"
    return title + "\n\n" + "\n".join(lines)


def main() -> None:
    """Measure all systems, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu", help="of the systems in PyTorch: cpu or cuda")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "latency")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, folder = options.child
        count = options.threads[0]
        if what in SYSTEMS:
            found = measure(what, count, options.seconds, options.device, Path(folder))
        elif what == "sizes":
            found = sizes(options.seconds)
        else:
            found = {"rate": matmul_rate(count)}
        print(json.dumps(found))
        return

    from recipe_runs import describe_machine

    names = [REFERENCE, *(name for name in options.systems if name != REFERENCE)]
    lengths = sorted({*options.seconds, 3})
    of_all = {"machine": describe_machine(max(options.threads)), "device": options.device, "threads": {}}
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        words = [str(s) for s in lengths]
        of_all["sizes"] = run_child(["--child", "sizes", folder, "--seconds", *words], 1)
        for count in options.threads:
            common = ["--threads", str(count), "--device", options.device, "--seconds"]
            rates = [run_child(["--child", "rate", folder, *common, "1"], count)["rate"]]
            found = {}
            for name in names:
                extra = ["60"] if name in MEASURED_GROWTH else []
                row = run_child(["--child", name, folder, *common, *words, *extra], count)
                if row is not None:
                    found[name] = row
            # Before and after: the machine may have been busier at one time than at the other.
            rates.append(run_child(["--child", "rate", folder, *common, "1"], count)["rate"])
            of_all["threads"][count] = {"rate": max(rates), "systems": found}
    print(
        f"{of_all['machine']}, device {options.device}; {FRAMES_PER_SECOND} frames a second, batch of one\n"
    )
    for count, part in of_all["threads"].items():
        found = {name: part["systems"][name] for name in SYSTEMS if name in part["systems"]}
        print(report(found, of_all["sizes"], part["rate"], lengths, count) + "\n")
        for name in MEASURED_GROWTH:
            if name in found:
                ms = found[name]["ms"]
                growth = (ms["60"] / ms["1"]) / 60
                print(
                    f"{SYSTEMS[name]}: {ms['1']:.1f} ms at 1 s, {ms['60']:.1f} ms at 60 s, {growth:.2f} of linear"
                )
        print()
    for device, (short, long) in PUBLISHED.items():
        print(f"Published, modified Tiny, 1 to 10 s, {device} of the paper's own: {short} to {long} ms")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(of_all, indent=2) + "\n")


if __name__ == "__main__":
    main()
