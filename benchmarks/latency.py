#!/usr/bin/env python3
"""Times waveform to embedding, next to SpeechBrain's own extractors and Resemblyzer, in one run.

    python benchmarks/latency.py [--threads 1 2] [--seconds 1 3 10] [--device cpu]

Each system runs in a separate process, which also shows its cold start (start of the program to the first embedding of
1 s) and its peak memory. Last comes `bccmt verify a.wav b.wav`, with PyTorch, with the shipped graph, and in
bccmt-runtime, which is installed for this (benchmarks/runtime_wheel.py has more on it; --no-runtime leaves it out).
Weights are random, which does not affect the time. Prints a Markdown report and writes it to
results/latency/results.md, and all figures to results/latency/results.json. Systems that are not installed are left out
and named (pip install resemblyzer). Takes about six minutes on an idle machine with two cores; on a busy one, medians
grow, and the best passes, also in results.json, less so.

MACs are multiply-accumulate operations at 100 frames a second. The encoder's are counted by
speechbrain_bccmt.profiling. The front end's are those of a plain fast Fourier transform of each frame and of the dense
product with the mel filters; an exported graph does more than that. Our own systems embed audio above 30 s in equal
chunks, as the package does, and their MACs are counted accordingly. MAC time is the time for these MACs at the rate
that this CPU reaches in single precision matrix products.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from latency_report import FRAMES_PER_SECOND, GROWTH_SECONDS, MEASURED_GROWTH, REFERENCE, SYSTEMS, report
from peak_memory import peak_megabytes
from runtime_wheel import build_wheel, cold_start_table, cold_starts, install, write_clips

RATE = 16000
OURS = ("tiny", "small", "base")
# Timed passes of one length in one round: until this many seconds are over, at least one and at most MOST.
ROUNDS, SECONDS_PER_ROUND, MOST = 7, 0.2, 30
# Points of the front ends' Fourier transforms: 25 ms, as in SpeechBrain's Fbank.
N_FFT = 400


def build(name: str):
    """Build an extractor as its recipe does, with random weights; return it with its number of log-mel bands."""
    import torch

    torch.manual_seed(0)
    if name in OURS:
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
    """Return a function from waveform, (samples,) float32 in [-1, 1], or features, (1, frames, mels), to embedding."""
    import numpy as np

    if name.endswith(("onnx", "int8")):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=providers)
        if "features" in name:
            return lambda features: session.run(None, {"features": features})[0]
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

    if name in OURS:
        from speechbrain_bccmt.inference.embedding import embed_waveforms

        @torch.inference_mode()
        def embed_in_chunks(wav: np.ndarray):
            return embed_waveforms([torch.from_numpy(wav)], front_end, norm, model, device).cpu()

        return embed_in_chunks

    @torch.inference_mode()
    def embed(wav: np.ndarray):
        wavs = torch.from_numpy(wav[None]).to(device)
        return model(norm(front_end(wavs), whole), whole).cpu()

    return embed


def measure(name: str, threads: int, lengths: list[int], device: str, folder: Path) -> dict:
    """Measure one system, in this process."""
    import numpy as np

    rng = np.random.default_rng(0)

    def noise(seconds: int):
        shape = (1, seconds * FRAMES_PER_SECOND + 1, 80) if "features" in name else seconds * RATE
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    embed = extractor(name, threads, device, folder)
    embed(noise(1))
    found = {
        "cold_start_s": time.time() - float(os.environ["STARTED"]),
        "peak_mb": {},
    }
    audio = {}
    for seconds in sorted(lengths):  # ascending, as the peak includes all earlier lengths
        audio[seconds] = noise(seconds)
        embed(audio[seconds])
        found["peak_mb"][seconds] = peak_megabytes()
    times = {seconds: [] for seconds in lengths}
    # In turns, as lengths are compared, and other work or thread placement changes within seconds.
    for _ in range(ROUNDS):
        for seconds in lengths:
            embed(audio[seconds])
            start, passes = time.perf_counter(), 0
            while not passes or (passes < MOST and time.perf_counter() - start < SECONDS_PER_ROUND):
                before = time.perf_counter()
                embed(audio[seconds])
                times[seconds].append(1000 * (time.perf_counter() - before))
                passes += 1
    found["ms"] = {seconds: statistics.median(times[seconds]) for seconds in lengths}
    found["best_ms"] = {seconds: min(times[seconds]) for seconds in lengths}
    return found


def matmul_rate(threads: int) -> float:
    """Measure the multiply-accumulates per second of this CPU in products of 512 x 512 matrices."""
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
    """Count parameters, and MACs at each length, of the systems that can be built here."""
    from speechbrain_bccmt.audio.recording import MAX_CHUNK_SECONDS
    from speechbrain_bccmt.profiling import count_macs, count_parameters

    def macs_of(name: str, model, n_mels: int, seconds: int) -> int:
        chunks = math.ceil(seconds / MAX_CHUNK_SECONDS) if name in OURS else 1
        return chunks * count_macs(model, frames=seconds * FRAMES_PER_SECOND // chunks, n_mels=n_mels)

    found = {}
    for name in (*OURS, "ecapa", "xvector", "resnet"):
        model, n_mels = build(name)
        macs = {s: macs_of(name, model, n_mels, s) for s in lengths}
        front_end = {s: front_end_macs(s * FRAMES_PER_SECOND, n_mels) for s in lengths}
        found[name] = {"parameters": count_parameters(model), "macs": macs, "front_end_macs": front_end}
    return found


def front_end_macs(frames: int, n_mels: int) -> int:
    """Count MACs of log-mel features: 2.5 n log2 n operations for n real points, two per MAC, plus the filters."""
    return round(frames * (1.25 * N_FFT * math.log2(N_FFT) + (N_FFT // 2 + 1) * n_mels))


def export(folder: Path) -> None:
    """Write the ONNX files; int8 is calibrated on noise here, as only time counts."""
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    from speechbrain_bccmt.export.onnx import export_onnx
    from speechbrain_bccmt.export.quantise import quantise_static
    from speechbrain_bccmt.inference.model_folder import SpeakerModel

    for name in OURS:
        norm = InputNormalization(norm_type="sentence", std_norm=False)
        model = SpeakerModel(Fbank(n_mels=80).eval(), norm.eval(), build(name)[0].eval())
        export_onnx(model, folder / f"{name}_onnx.onnx", graph="waveform")
        if name == "tiny":
            export_onnx(model, folder / "tiny_features_onnx.onnx", graph="features")
    noise = [0.1 * torch.randn(1, 3 * RATE).numpy() for _ in range(8)]
    quantise_static(folder / "tiny_onnx.onnx", folder / "tiny_int8.onnx", noise)


def run_child(arguments: list[str], threads: int, needed: bool = True) -> dict | None:
    """Run this script again with other arguments; return its output, or None if it failed and is not needed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # A cold start includes imports and the interpreter's own start.
    environment["STARTED"] = str(time.time())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and needed:
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr}")
    if done.returncode:  # the others' figures are worth having
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"left out {arguments[1]}: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_commands() -> dict:
    """Time `bccmt verify` on two clips, with PyTorch, with the graph, and in an environment of bccmt-runtime."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = install(build_wheel(folder), folder / "environment")
        return cold_starts(environment, write_clips(folder))


def main() -> None:
    """Measure all systems, print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu", help="of the systems in PyTorch: cpu or cuda")
    parser.add_argument("--no-runtime", action="store_true", help="leave out the command and bccmt-runtime")
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
    longer = [s for s in GROWTH_SECONDS if s not in lengths]
    of_all = {"machine": describe_machine(max(options.threads)), "device": options.device, "threads": {}}
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        words, longer_words = [str(s) for s in lengths], [str(s) for s in longer]
        of_all["sizes"] = run_child(["--child", "sizes", folder, "--seconds", *words, *longer_words], 1)
        for count in options.threads:
            common = ["--threads", str(count), "--device", options.device, "--seconds"]
            found, rates = {}, []
            for number, name in enumerate(names):
                # Repeatedly, as the machine may be busier at one time than at another.
                if number % 4 == 0:
                    rates.append(run_child(["--child", "rate", folder, *common, "1"], count)["rate"])
                extra = longer_words if name in MEASURED_GROWTH else []
                row = run_child(["--child", name, folder, *common, *words, *extra], count, name == REFERENCE)
                if row is not None:
                    found[name] = row
            of_all["threads"][str(count)] = {"rate": max(rates), "rates": rates, "systems": found}
    text = report(of_all, lengths)
    if not options.no_runtime:
        of_all["commands"] = measure_commands()
        text += f"\n### From a cold start, 1 thread, two clips of 3 s\n\n{cold_start_table(of_all['commands'])}\n"
    print(text, end="")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(of_all, indent=2) + "\n", encoding="utf-8")
    (options.output / "results.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
