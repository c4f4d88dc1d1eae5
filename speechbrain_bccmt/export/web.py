"""The web page of a model: the page built in `web/`, with the model's waveform graph and calibration."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from pathlib import Path

from speechbrain_bccmt.attention.clip_attention import PLOTTED_SECONDS
from speechbrain_bccmt.audio.recording import MAX_CHUNK_SECONDS
from speechbrain_bccmt.audio.silero import model_file
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.export.weights import shrink_weights
from speechbrain_bccmt.features import band_frequencies
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_files import CALIBRATION_FILE, OPEN_SET_FILE, find_own_file
from speechbrain_bccmt.inference.model_folder import SpeakerModel
from speechbrain_bccmt.inference.verifier import MIN_SECONDS

PAGE = Path(__file__).parents[1] / "page"
LISTING, CONFIG, SERVICE_WORKER = "page.json", "config.json", "service-worker.js"
GRAPH, SPEECH = "model.onnx.gzip", "speech.onnx.gzip"


def export_web(model: SpeakerModel, folder: str | Path, page: str | Path = PAGE) -> list[Path]:
    """Write the web page of a model: static files for any server.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    folder : str or Path
        Where to write; files of an earlier page are replaced.
    page : str or Path
        The page, as built by `npm run build` in `web/`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileNotFoundError
        If the page is not built.
    TypeError
        If the model's front end has no exportable form.
    ImportError
        If the package onnx is not installed.
    """
    folder, page = Path(folder), Path(page)
    check_page(page)
    listing = json.loads((page / LISTING).read_text(encoding="utf-8"))
    open_set = find_own_file(model.source, OPEN_SET_FILE)
    packed = {"model": _pack(GRAPH, _graph(model)), "speech": _pack(SPEECH, _speech_network())}
    config = {
        "name": Path(model.source).name or "model",
        "sample_rate": model.sample_rate,
        "embedding_size": model.embedding_size,
        "min_seconds": float(model.architecture.get("min_seconds", MIN_SECONDS)),
        "max_chunk_seconds": MAX_CHUNK_SECONDS,
        "fingerprint": fingerprint(model.modules),
        "calibration": CALIBRATION_FILE if model.calibration else None,
        "open_set": OPEN_SET_FILE if open_set else None,
        "attention": _attention(model),
        "packed": listing["packed"] | {use: entry for use, (entry, _) in packed.items()},
    }
    contents = {name: (page / name).read_bytes() for name in listing["shell"]}
    contents |= {part["file"]: (page / part["file"]).read_bytes() for part in listing["packed"].values()}
    contents |= {entry["file"]: content for entry, content in packed.values()}
    contents[CONFIG] = json.dumps(config, indent=2).encode() + b"\n"
    if model.calibration:
        contents[CALIBRATION_FILE] = _calibration(model)
    if open_set:
        contents[OPEN_SET_FILE] = open_set.read_bytes()
    # Last, because a new service worker makes browsers reload the page.
    contents[SERVICE_WORKER] = _service_worker(
        page, contents, [part["file"] for part in config["packed"].values()]
    )
    for name, content in contents.items():
        with temporary_sibling(folder / name) as temporary:
            temporary.write_bytes(content)
            temporary.replace(folder / name)
    return [folder / name for name in contents]


def check_page(page: Path) -> None:
    """Raise FileNotFoundError, with build instructions, if `page` is not a built page."""
    if not (page / LISTING).is_file():
        raise FileNotFoundError(
            f"{page} holds no built page: run `npm ci && npm run build` in the folder web of a clone, with Node.js"
        )


def _graph(model: SpeakerModel) -> bytes:
    """Return the waveform graph with 16-bit weights, which change no error rate (docs/latency.md)."""
    with tempfile.TemporaryDirectory() as folder:
        graph = "attention" if _attention(model) else "waveform"
        exact = export_onnx(model, Path(folder) / "waveform.onnx", graph)
        return shrink_weights(exact, Path(folder) / "small.onnx", "float16").read_bytes()


def _attention(model: SpeakerModel) -> dict | None:
    """Return what a plot of the attention needs besides the graph's outputs; None for encoders without maps."""
    encoder = model.embedding_model
    if not hasattr(encoder, "forward_with_attention"):
        return None
    tokens = list(getattr(encoder, "token_names", ()))
    return {
        "seconds": PLOTTED_SECONDS,
        "block": encoder.depths[-1] if tokens else sum(encoder.depths),
        "frequencies": band_frequencies(model.compute_features).tolist(),
        "tokens": tokens,
        "time_stride": encoder.time_stride if tokens else 1,
    }


def _speech_network() -> bytes:
    """Return silero's network with 16-bit weights: all 360 recordings of six corpora kept the same speech."""
    with tempfile.TemporaryDirectory() as folder:
        return shrink_weights(model_file(), Path(folder) / "small.onnx", "float16").read_bytes()


def _pack(name: str, content: bytes) -> tuple[dict, bytes]:
    """Return the page's entry for a packed file, and the file."""
    packed = gzip.compress(content, mtime=0)
    digest = hashlib.sha256(content).hexdigest()
    entry = {"file": name, "packed_bytes": len(packed), "bytes": len(content), "sha256": digest}
    return entry, packed


def _calibration(model: SpeakerModel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CALIBRATION_FILE
        model.calibration.save(path)
        return path.read_bytes()


def _service_worker(page: Path, contents: dict[str, bytes], large: list[str]) -> bytes:
    """Return the service worker with the files to cache: all but the large ones, which the page caches itself."""
    code = (page / SERVICE_WORKER).read_bytes()
    digest = hashlib.sha256(code)
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    # Browsers request the folder's address, for which servers return index.html.
    files = ["./" if name == "index.html" else name for name in contents if name not in large]
    shell = {"version": digest.hexdigest()[:16], "files": files}
    return f"const SHELL = {json.dumps(shell)};\n".encode() + code
