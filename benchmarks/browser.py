#!/usr/bin/env python3
"""Measure the page of `bccmt export web`: the transfer of a first visit, and the time for 3 s of audio next to Python.

    python benchmarks/browser.py [--seconds 3] [--rounds 9]

Needs Node.js, the built page (`npm ci && npm run build` in web/), a Chromium on the path, and playwright. The server
counts the transfer in bytes of the files themselves, without compression in transit. Times are on one thread each and
taken in turns: Chromium and ONNX Runtime run the same waveform graph, PyTorch is `SpeakerVerification.embed`. The model
is the shipped one, the audio noise. `ready` is the time from opening the address to a usable page with everything
loaded, and again from the browser's cache. Prints Markdown and writes results/browser/browser.json.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.export.web import SPEECH, export_web
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.sessions import load_session

RATE = 16000
WEB = ROOT / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPEN = """async () => {
    const get = async (name) => (await fetch(name)).arrayBuffer().then((content) => new Uint8Array(content));
    const { createModel } = await import("./library.js");
    const config = await (await fetch("config.json")).json();
    const [graph, speech, runtime] = await Promise.all(["waveform.onnx", "speech.onnx", "runtime.wasm"].map(get));
    window.model = await createModel({config, graph, speech, runtime});
}"""
EMBED = """async ([seconds, passes, vad]) => {
    const wav = Float32Array.from({length: seconds * 16000}, () => 0.2 * Math.random() - 0.1);
    const times = [];
    for (let pass = 0; pass < passes; pass++) {
        const begin = performance.now();
        await window.model.embed(wav, 16000, vad);
        times.push(performance.now() - begin);
    }
    return times;
}"""


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    """Request handler that serves a folder and counts the bytes sent."""

    def copyfile(self, source, output):
        """Send a file."""
        content = source.read()
        self.server.sent[self.path] = self.server.sent.get(self.path, 0) + len(content)
        output.write(content)

    def log_message(self, *arguments):
        """Write no log."""


def start_server(folder: Path) -> http.server.ThreadingHTTPServer:
    """Serve a folder from a thread; `sent` holds the bytes sent for each path."""
    handler = functools.partial(CountingHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.sent = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def seconds_to_ready(page, address: str) -> float:
    """Open the page, and return the seconds until it is usable offline."""
    begin = time.perf_counter()
    page.goto(address)
    page.locator("main").wait_for(state="visible")
    ready = time.perf_counter() - begin
    page.get_by_text("works without a network").wait_for()
    return ready


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3, help="length of the audio")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of all systems in turn")
    parser.add_argument("--passes", type=int, default=10, help="timed passes of a system per round")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "browser")
    options = parser.parse_args()
    if CHROMIUM is None:
        parser.error("there is no chromium on the path")
    from playwright.sync_api import sync_playwright

    torch.set_num_threads(1)
    wav = (0.1 * np.random.default_rng(0).standard_normal(options.seconds * RATE)).astype(np.float32)
    verification = SpeakerVerification.from_hparams()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        model = load_speaker_model()
        export_web(model, folder)
        export_onnx(model, folder / "waveform.onnx", "waveform")
        (folder / "speech.onnx").write_bytes(gzip.decompress((folder / SPEECH).read_bytes()))
        session = load_session(folder / "waveform.onnx", threads=1)
        runtime = WEB / "node_modules" / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm"
        shutil.copy(runtime, folder / "runtime.wasm")
        bundle = ["npx", "esbuild", "dist/index.js", "--bundle", "--format=esm", "--log-level=error"]
        externals = ["--external:module", "--external:worker_threads"]
        subprocess.run([*bundle, *externals, f"--outfile={folder / 'library.js'}"], cwd=WEB, check=True)
        server = start_server(folder)
        address = f"http://127.0.0.1:{server.server_port}/"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        first = seconds_to_ready(page, address)
        transfer = dict(server.sent)
        again = seconds_to_ready(page, address)
        page.evaluate(OPEN)
        systems = {
            "Chromium, onnxruntime-web": lambda: page.evaluate(
                EMBED, [options.seconds, options.passes, False]
            ),
            "Chromium, with voice activity detection and the search for hum": lambda: page.evaluate(
                EMBED, [options.seconds, options.passes, True]
            ),
            "Python, ONNX Runtime": lambda: time_passes(
                options.passes, lambda: session.run(None, {"waveform": wav[None]})
            ),
            "Python, PyTorch": lambda: time_passes(options.passes, lambda: verification.embed(wav)),
        }
        times = {name: [] for name in systems}
        for measure in systems.values():
            measure()  # warms up
        for _ in range(options.rounds):
            for name, measure in systems.items():
                times[name] += measure()
        version = browser.version
        browser.close()
        server.shutdown()

    total = sum(transfer.values())
    print(f"{describe_machine(1)}; load {os.getloadavg()[0]:.1f}; Chromium {version}\n")
    print(f"First visit: {total / 1e6:.2f} MB, ready in {first:.1f} s; again: ready in {again:.1f} s\n")
    print("| file | bytes |\n|---|---|")
    for name, size in sorted(transfer.items(), key=lambda item: -item[1]):
        print(f"| {name} | {size:,} |")
    print(f"\n| {options.seconds} s of audio | median, ms | best, ms |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": describe_machine(1), "chromium": version, "transfer": transfer, "total": total}
    report |= {"ready_s": [first, again], "ms": times}
    (options.output / "browser.json").write_text(json.dumps(report, indent=1) + "\n")


def time_passes(passes: int, work) -> list[float]:
    """Return the milliseconds of each pass."""
    times = []
    for _ in range(passes):
        begin = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begin))
    return times


if __name__ == "__main__":
    main()
