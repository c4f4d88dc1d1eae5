"""The web page of a model: the built page of `web/`, with the model's waveform graph and calibration beside it."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from pathlib import Path

from speechbrain_bccmt.audio.recording import MAX_CHUNK_SECONDS
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_folder import CALIBRATION_FILE, SpeakerModel
from speechbrain_bccmt.inference.verifier import MIN_SECONDS

PAGE = Path(__file__).parents[1] / "page"
LISTING, CONFIG, GRAPH, SERVICE_WORKER = "page.json", "config.json", "model.onnx.gzip", "service-worker.js"


def export_web(model: SpeakerModel, folder: str | Path, page: str | Path = PAGE) -> list[Path]:
    """Write the web page of a model: static files, for any server.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    folder : str or Path
        Where to write; files of an earlier page are replaced.
    page : str or Path
        The built page, as `npm run build` in `web/` leaves it.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileNotFoundError
        If the page is not built.
    TypeError
        If the model's front end has no form for export.
    ImportError
        If the package onnx is not installed.
    """
    folder, page = Path(folder), Path(page)
    check_page(page)
    listing = json.loads((page / LISTING).read_text(encoding="utf-8"))
    graph, packed_graph = _graph(model)
    config = {
        "name": Path(model.source).name or "model",
        "sample_rate": model.sample_rate,
        "embedding_size": model.embedding_size,
        "min_seconds": float(model.architecture.get("min_seconds", MIN_SECONDS)),
        "max_chunk_seconds": MAX_CHUNK_SECONDS,
        "fingerprint": fingerprint(model.modules),
        "calibration": CALIBRATION_FILE if model.calibration else None,
        "packed": listing["packed"]
        | {
            "model": {
                "file": GRAPH,
                "packed_bytes": len(packed_graph),
                "bytes": len(graph),
                "sha256": hashlib.sha256(graph).hexdigest(),
            }
        },
    }
    contents = {name: (page / name).read_bytes() for name in listing["shell"]}
    contents |= {part["file"]: (page / part["file"]).read_bytes() for part in listing["packed"].values()}
    contents |= {CONFIG: json.dumps(config, indent=2).encode() + b"\n", GRAPH: packed_graph}
    if model.calibration:
        contents[CALIBRATION_FILE] = _calibration(model)
    # Last: with a new one, browsers take the page anew.
    contents[SERVICE_WORKER] = _service_worker(
        page, contents, [part["file"] for part in config["packed"].values()]
    )
    for name, content in contents.items():
        with temporary_sibling(folder / name) as temporary:
            temporary.write_bytes(content)
            temporary.replace(folder / name)
    return [folder / name for name in contents]


def check_page(page: Path) -> None:
    """Raise FileNotFoundError, with the way to build it, where `page` is no built page."""
    if not (page / LISTING).is_file():
        raise FileNotFoundError(
            f"{page} holds no built page: run `npm ci && npm run build` in the folder web of a clone, with Node.js"
        )


def _graph(model: SpeakerModel) -> tuple[bytes, bytes]:
    """Return the waveform graph, as it is and packed."""
    with tempfile.TemporaryDirectory() as folder:
        graph = export_onnx(model, Path(folder) / "waveform.onnx", "waveform").read_bytes()
    return graph, gzip.compress(graph, mtime=0)


def _calibration(model: SpeakerModel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CALIBRATION_FILE
        model.calibration.save(path)
        return path.read_bytes()


def _service_worker(page: Path, contents: dict[str, bytes], large: list[str]) -> bytes:
    """Return the service worker with what it is to keep: all files but the large ones, which the page keeps itself."""
    code = (page / SERVICE_WORKER).read_bytes()
    digest = hashlib.sha256(code)
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    # A folder is asked for by its address; servers then give index.html.
    files = ["./" if name == "index.html" else name for name in contents if name not in large]
    shell = {"version": digest.hexdigest()[:16], "files": files}
    return f"const SHELL = {json.dumps(shell)};\n".encode() + code
