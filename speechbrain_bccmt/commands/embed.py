"""`bccmt embed`: embed recordings."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs
from speechbrain_bccmt.commands.streams import one_line
from speechbrain_bccmt.files import temporary_sibling

ARRAYS = (".npz", ".safetensors")
FORMATS = (*ARRAYS, ".json", ".jsonl")


def _read_shard(ctx, param, value: str | None) -> slice:
    if value is None:
        return slice(None)
    found = re.fullmatch(r"(\d+)/(\d+)", value)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise click.UsageError(f"--shard is '{value}', expected I/N with I from 1 to N, such as 3/10")
    return slice(number - 1, None, count)


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
    help="Name recordings by their path relative to this folder, as a trial list does.",
)
@click.option(
    "--archive",
    type=click.Path(file_okay=False),
    help="Store embeddings in this folder as they are computed; a restarted run computes only the missing ones.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of processes, with one thread each; needs --archive.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run on a Ray cluster, in --jobs processes: auto if this machine is part of one, or host:port.",
)
@click.option(
    "--shard", callback=_read_shard, metavar="I/N", help="Embed only the I-th of N parts of the recordings."
)
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def embed(model, files, output, root, archive, jobs, ray, shard, vad, device, engine, quiet):
    """Embed recordings.

    FILES are recordings, folders with recordings, or globs; - reads a list from standard input.

    An .npz file holds `ids`, `embeddings` (number, size), `seconds` and `speech_seconds`; a .safetensors file the same,
    with the ids as JSON in its metadata. For a trial list, --no-vad embeds whole recordings. Unusable recordings are
    reported on standard error, the others are written, and the exit code is 2.

    For many recordings, --archive stores the embeddings as they are computed, in --jobs processes and on several
    machines with one --shard each. -o then writes all of them at the end, as .npz or .safetensors.
    """
    inputs.check_ending(output, FORMATS if archive is None else ARRAYS)
    if str(output).lower().endswith(".safetensors") and find_spec("safetensors") is None:
        raise click.UsageError(f"{output}: needs the package safetensors: pip install safetensors")
    if (jobs > 1 or ray) and archive is None:
        raise click.UsageError(f"--{'ray' if ray else 'jobs'} needs --archive, a folder to keep the embeddings in")
    paths = inputs.expand_inputs(files)[shard]
    names = {path: os.path.relpath(path, root).replace(os.sep, "/") if root else path for path in paths}
    if output is not None:
        with temporary_sibling(Path(output)) as temporary:
            temporary.touch()  # so that a folder that cannot be written to is reported before the work
    if archive is not None:
        failed = _fill(archive, inputs.load_model(model, device, vad, engine), jobs, ray, names, output, quiet)
        click.get_current_context().exit(2 if failed else 0)
    utterances, failed = [], 0
    embed_file = inputs.load_model(model, device, vad, engine).embed_file
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


def _fill(
    folder: str, model, jobs: int, ray: str | None, names: dict[str, str], output: str | None, quiet: bool
) -> int:
    """Embed the recordings missing from an archive, write all of them, and return how many could not be used."""
    import numpy as np
    from tqdm import tqdm

    from speechbrain_bccmt.audio.recording import Recording
    from speechbrain_bccmt.inference.archive import Archive

    archive = Archive(folder, model, jobs, ray)
    missing = archive.missing(names)
    done, failed, seconds, begun = 0, 0, 0.0, time.monotonic()
    # Progress by size, as the long ones come first.
    with tqdm(total=sum(missing.values()), unit="B", unit_scale=True, disable=quiet or None) as bar:
        for path, result in archive.embed({path: names[path] for path in missing}):
            with tqdm.external_write_mode():
                if isinstance(result, Exception):
                    failed += 1
                    click.echo(f"error: {one_line(result)}", err=True)
                else:
                    done, seconds = done + 1, seconds + result.seconds
                    inputs.print_warnings(result.warnings)
            speed = seconds / (time.monotonic() - begun)
            bar.set_description(
                f"{done} files, {seconds / 3600:.2f} h, {speed:.0f} x real time", refresh=False
            )
            bar.update(missing[path])
    if not quiet:
        click.echo(
            f"{done} recordings of {seconds / 3600:.2f} h embedded in {time.monotonic() - begun:.1f} s, "
            f"{len(names) - len(missing)} were there",
            err=True,
        )
    if output is not None:
        kept, embeddings, lengths = archive.read(names)
        for row in np.flatnonzero(np.isnan(lengths[:, 0])):
            lengths[row, 0] = Recording.open(kept[row]).seconds
        if kept:
            _write_arrays(
                Path(output),
                [names[path] for path in kept],
                embeddings,
                seconds=lengths[:, 0],
                speech_seconds=lengths[:, 1],
            )
    return failed


def _entry(name: str, utterance) -> dict:
    return {
        "id": name,
        "seconds": round(utterance.seconds, 3),
        "speech_seconds": round(utterance.speech_seconds, 3),
        "warnings": list(utterance.warnings),
        "embedding": [float(f"{value:.7g}") for value in utterance.embedding.tolist()],
    }


def _write(path: Path, utterances: list) -> None:
    if path.suffix.lower() in ARRAYS:
        ids, found = zip(*utterances, strict=True)
        names = ("seconds", "speech_seconds")
        columns = {name: [getattr(utterance, name) for utterance in found] for name in names}
        _write_arrays(path, list(ids), [utterance.embedding for utterance in found], **columns)
        return
    entries = [json.dumps(_entry(*pair), ensure_ascii=False) for pair in utterances]
    text = "\n".join(entries) if path.suffix.lower() == ".jsonl" else "[" + ",\n".join(entries) + "]"
    with temporary_sibling(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)


def _write_arrays(path: Path, ids: list[str], embeddings, **columns: Sequence[float]) -> None:
    import numpy as np

    arrays = {"embeddings": np.stack(embeddings)} | {name: np.array(column) for name, column in columns.items()}
    with temporary_sibling(path) as temporary:
        if path.suffix.lower() == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, ids=np.array(ids), **arrays)
        else:
            from safetensors.numpy import save_file

            save_file(arrays, temporary, metadata={"ids": json.dumps(ids, ensure_ascii=False)})
        os.replace(temporary, path)
