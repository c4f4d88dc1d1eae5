"""The systems that benchmarks/latency.py measures, and its report as Markdown."""

from __future__ import annotations

FRAMES_PER_SECOND = 100
REFERENCE = "ecapa"
# Milliseconds of the modified Tiny at 1 and 10 s in TASLP 32 (2024).
PUBLISHED = {"CPU": (29.07, 146.32), "GPU": (36.01, 206.43)}
SYSTEMS = {
    "tiny": "BC-CMT Tiny, PyTorch",
    "tiny_onnx": "BC-CMT Tiny, ONNX",
    "tiny_features_onnx": "BC-CMT Tiny, ONNX, from features",
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
MEASURED_GROWTH = ("tiny", "tiny_onnx")  # also measured at longer lengths
GROWTH_SECONDS = (30, 60)


def needed_macs(name: str, sizes_of: dict, seconds: int) -> tuple[int, int] | None:
    """Return the MACs of a system's encoder and of its front end; None if they are not counted."""
    size = sizes_of.get(name.split("_")[0])
    if size is None:
        return None
    front_end = 0 if "features" in name else size["front_end_macs"][str(seconds)]
    return size["macs"][str(seconds)], front_end


def table(found: dict, sizes_of: dict, rate: float, lengths: list[int]) -> str:
    """Lay out one number of threads as a Markdown table."""
    reference = found[REFERENCE]["ms"]
    heads = ["system", "parameters", "MMACs of encoder + front end, 300 frames"]
    heads += [f"{s} s, ms" for s in lengths] + [f"ECAPA / it, {s} s" for s in lengths]
    heads += ["time / MAC time, 3 s", f"peak MB, {lengths[-1]} s", "cold start, s"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, row in found.items():
        macs = needed_macs(name, sizes_of, 3)
        parameters = f"{sizes_of[name.split('_')[0]]['parameters']:,}" if macs else ""
        cells = [SYSTEMS[name], parameters, f"{macs[0] / 1e6:,.1f} + {macs[1] / 1e6:.1f}" if macs else ""]
        cells += [f"{row['ms'][str(s)]:.1f}" for s in lengths]
        cells += [f"{reference[str(s)] / row['ms'][str(s)]:.1f}" for s in lengths]
        cells += [f"{row['ms']['3'] / (1000 * sum(macs) / rate):.1f}" if macs else ""]
        cells += [f"{row['peak_mb'][str(lengths[-1])]:.0f}", f"{row['cold_start_s']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bounds(found: dict, sizes_of: dict, rate: float) -> list[str]:
    """Compare Tiny's time at 3 s with the time that its MACs need."""
    lines = []
    for name in ("tiny_features_onnx", "tiny_onnx"):
        if name not in found:
            continue
        encoder, front_end = needed_macs(name, sizes_of, 3)
        ms = found[name]["ms"]["3"]
        line = f"- {SYSTEMS[name]}, 3 s: {ms:.2f} ms; its encoder's {encoder / 1e6:.1f} M MACs need "
        line += f"{1000 * encoder / rate:.2f} ms: {ms * rate / 1000 / encoder:.1f} times that"
        if front_end:
            both = encoder + front_end
            line += f"; with the front end's {front_end / 1e6:.1f} M, {1000 * both / rate:.2f} ms: "
            line += f"{ms * rate / 1000 / both:.1f} times"
        lines.append(line)
    return lines


def growth(found: dict, sizes_of: dict, lengths: list[int]) -> list[str]:
    """Return how time, MACs and memory grow with the length of the audio."""
    lines = []
    for name in MEASURED_GROWTH:
        if name not in found:
            continue
        ms, peak = found[name]["ms"], found[name]["peak_mb"]
        macs = {s: sum(needed_macs(name, sizes_of, s)) for s in (*lengths, *GROWTH_SECONDS)}
        parts = []
        for s in sorted(macs):
            part = f"{s} s {ms[str(s)]:.1f} ms, {peak[str(s)]:.0f} MB"
            if s != lengths[0]:
                ratio = s / lengths[0]
                time_ratio = ms[str(s)] / ms[str(lengths[0])] / ratio
                part += f" (time {time_ratio:.2f}, MACs {macs[s] / macs[lengths[0]] / ratio:.2f} of linear)"
            parts.append(part)
        lines.append(f"- {SYSTEMS[name]}: {'; '.join(parts)}")
    return lines


def report(of_all: dict, lengths: list[int]) -> str:
    """Write everything as Markdown."""
    sizes_of = of_all["sizes"]
    parts = [
        f"{of_all['machine']}, device {of_all['device']}; waveform to embedding unless said otherwise, batch of one, "
        f"{FRAMES_PER_SECOND} frames a second, medians."
    ]
    for count, part in of_all["threads"].items():
        found = {name: part["systems"][name] for name in SYSTEMS if name in part["systems"]}
        parts += [
            f"### {count} thread{'s' if int(count) > 1 else ''}",
            f"{part['rate'] / 1e9:.0f} GMAC/s in matrix products of 512 x 512.",
            table(found, sizes_of, part["rate"], lengths),
            "\n".join(bounds(found, sizes_of, part["rate"]) + growth(found, sizes_of, lengths)),
        ]
    for device, (short, long) in PUBLISHED.items():
        parts.append(
            f"Published, modified Tiny, 1 to 10 s, on the paper's own {device}: {short} to {long} ms."
        )
    return "\n\n".join(part for part in parts if part) + "\n"
