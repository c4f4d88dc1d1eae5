"""`bccmt info`: show a model's size, operations and latency."""

from __future__ import annotations

import json
import platform

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Runs per timing; the median is shown.",
)
@inputs.json_option
@inputs.device_option
def info(model, threads, repeats, as_json, device):
    """Show a model's size, operations, and latency on this machine.

    Operations are multiply-accumulates of the encoder on one second of speech; latency is from waveform to embedding,
    one utterance at a time, with PyTorch, and with ONNX Runtime if the model ships its graph.
    """
    result = _describe(inputs.load_model(model, device), threads, repeats)
    result["onnx_latency_ms"] = _graph_latency(model, threads, repeats) if device == "cpu" else None
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _table(result))


def _describe(verification, threads: int, repeats: int) -> dict:
    import torch

    from speechbrain_bccmt.features import frame_count
    from speechbrain_bccmt.inference.fingerprint import fingerprint
    from speechbrain_bccmt.profiling import count_macs, count_parameters, latency_ms

    class Whole(torch.nn.Module):
        """From waveform to embedding; `latency_ms` treats a sample as a frame of one mel."""

        def __init__(self):
            super().__init__()
            self.parts = verification.mods

        def forward(self, wavs):
            return verification.encode_batch(wavs.squeeze(-1))

    rate, front_end = verification.sample_rate, verification.mods.compute_features
    with torch.no_grad():
        n_mels = front_end(torch.zeros(1, rate, device=verification.device)).shape[-1]
    frames = frame_count(front_end, rate)
    encoder = verification.mods.embedding_model
    calibration = None if verification.calibration is None else verification.calibration.at()
    return {
        "model": verification.source,
        "encoder": type(encoder).__name__,
        "fingerprint": fingerprint(verification),
        "parameters": count_parameters(encoder),
        "macs_1s": count_macs(encoder, frames, n_mels),
        "frames_1s": frames,
        "mels": n_mels,
        "embedding_size": verification.embedding_size,
        "sample_rate": rate,
        "min_seconds": verification.min_seconds,
        "threshold": verification.threshold,
        "calibration": None
        if calibration is None
        else {
            name: getattr(calibration, name)
            for name in ("scale", "offset", "p_target", "c_miss", "c_fa", "fitted_on", "eer")
        },
        "latency_ms": {
            f"{seconds}s": round(latency_ms(Whole(), seconds * rate, threads, repeats, n_mels=1), 3)
            for seconds in (1, 3, 10)
        },
        "threads": threads,
        "device": str(verification.device),
        "machine": _machine(verification.device),
    }


def _graph_latency(model: str, threads: int, repeats: int) -> dict[str, float] | None:
    """Time the graph of a model; return None if it ships no valid one."""
    import statistics
    import time

    import numpy as np

    from speechbrain_bccmt.inference.graph import GraphVerifier

    try:
        graph = GraphVerifier.load(model, threads=threads)
    except (ImportError, OSError, ValueError):
        return None
    found = {}
    for seconds in (1, 3, 10):
        wav, times = np.zeros(seconds * graph.sample_rate, np.float32), []
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            graph.embed_waveform(wav)
            times.append(1000 * (time.perf_counter() - begun))
        found[f"{seconds}s"] = round(statistics.median(times[1:]), 3)
    return found


def _machine(device: str) -> str:
    import torch

    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _table(result: dict) -> str:
    calibration = result["calibration"]
    threshold = "none: give --threshold to bccmt verify"
    if calibration is not None:
        threshold = (
            f"threshold {result['threshold']:.4f}, for {100 * calibration['p_target']:g} % target trials, "
            f"miss {calibration['c_miss']:g}, false alarm {calibration['c_fa']:g}"
        )
        if calibration["fitted_on"]:
            threshold += f"; fitted on {calibration['fitted_on']}, EER {100 * calibration['eer']:.2f} %"
    measured = {"ONNX Runtime": result["onnx_latency_ms"], "PyTorch": result["latency_ms"]}
    latency = "; ".join(
        ", ".join(f"{length} {value:.1f} ms" for length, value in values.items()) + f" in {name}"
        for name, values in measured.items()
        if values
    )
    where = (
        f"{result['threads']} thread{'s' * (result['threads'] > 1)}, " if result["device"] == "cpu" else ""
    )
    lines = [
        ("model", f"{result['model']} ({result['encoder']}, fingerprint {result['fingerprint']})"),
        ("parameters", f"{result['parameters'] / 1000:,.2f} K"),
        (
            "operations",
            f"{result['macs_1s'] / 1e6:,.1f} M multiply-accumulates on 1 s ({result['frames_1s']} frames)",
        ),
        ("latency", f"{latency} (waveform to embedding, {where}{result['machine']})"),
        ("embedding", f"{result['embedding_size']} values"),
        ("calibration", threshold),
        ("sample rate", f"{result['sample_rate']} Hz (others are resampled)"),
        ("shortest", f"{result['min_seconds']:g} s"),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in lines)
