"""`bccmt embed`: embed recordings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs
from speechbrain_bccmt.files import temporary_sibling

FORMATS = (".npz", ".safetensors", ".json", ".jsonl")


@click.command()
@inputs.model_option
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="File to write: .npz, .safetensors, .json or .jsonl. Default: lines of JSON on standard output.",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False, exists=True),
    help="Name recordings by their path from this folder, as a trial list does.",
)
@inputs.vad_option
@inputs.device_option
@inputs.quiet_option
def embed(model, files, output, root, vad, device, quiet):
    """Embed recordings.

    FILES are recordings, folders with recordings, or globs; - reads a list from standard input.

    An .npz file holds `ids`, `embeddings` (number, size), `seconds` and `speech_seconds`; a .safetensors file the same,
    with the ids as JSON in its metadata. For a trial list, --no-vad embeds whole recordings. Recordings that cannot be
    used are reported on standard error, the others are written, and the exit code is 2.
    """
    inputs.check_ending(output, FORMATS)
    paths = inputs.expand_inputs(files)
    names = {path: os.path.relpath(path, root).replace(os.sep, "/") if root else path for path in paths}
    if output is not None:
        with temporary_sibling(Path(output)) as temporary:
            temporary.touch()  # so that a folder that cannot be written to is reported before the work
    utterances, failed = [], 0
    embed_file = inputs.load_model(model, device, vad).embed_file
    for path, utterance in inputs.run_each(embed_file, paths, "Embedding", quiet, skip_errors=True):
        if utterance is None:
            failed += 1
            continue
        inputs.print_warnings(utterance.warnings)
        if output is None:
            click.echo(json.dumps(_entry(names[path], utterance), ensure_ascii=False))
        else:
            utterances.append((names[path], utterance))
    if utterances:
        _write(Path(output), utterances)
    click.get_current_context().exit(2 if failed else 0)


def _entry(name: str, utterance) -> dict:
    return {
        "id": name,
        "seconds": round(utterance.seconds, 3),
        "speech_seconds": round(utterance.speech_seconds, 3),
        "warnings": list(utterance.warnings),
        "embedding": [float(f"{value:.7g}") for value in utterance.embedding.tolist()],
    }


def _write(path: Path, utterances: list) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    ids = [name for name, _ in utterances]
    arrays = {
        "embeddings": np.stack([utterance.embedding for _, utterance in utterances]),
        "seconds": np.array([utterance.seconds for _, utterance in utterances]),
        "speech_seconds": np.array([utterance.speech_seconds for _, utterance in utterances]),
    }
    kind = path.suffix.lower()
    with temporary_sibling(path) as temporary:
        if kind == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, ids=np.array(ids), **arrays)
        elif kind == ".safetensors":
            save_file(arrays, temporary, metadata={"ids": json.dumps(ids, ensure_ascii=False)})
        else:
            entries = [json.dumps(_entry(*pair), ensure_ascii=False) for pair in utterances]
            text = "\n".join(entries) if kind == ".jsonl" else "[" + ",\n".join(entries) + "]"
            temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
