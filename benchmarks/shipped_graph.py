#!/usr/bin/env python3
"""Rewrites the graph of a published folder, by default the shipped model's, for use after a change of the export.

    python benchmarks/shipped_graph.py [FOLDER]

Writes waveform.onnx, and adds its digest and the model's fingerprint to config.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from speechbrain_bccmt.export.hub import write_graph
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_files import CONFIG_FILE, GRAPH_FILE
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.models import DEFAULT, resolve_model


def main(source: str = DEFAULT) -> int:
    """Run from the command line; return the exit code."""
    folder, model = Path(resolve_model(source)), load_speaker_model(source)
    path = write_graph(model, folder / GRAPH_FILE)
    if path is None:
        return 1
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    digests = config.get("sha256", {}) | {GRAPH_FILE: hashlib.sha256(path.read_bytes()).hexdigest()}
    config |= {"fingerprint": fingerprint(model.modules), "sha256": digests}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
