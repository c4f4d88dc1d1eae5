"""`bccmt voiceprints`: move, re-enrol, index and purge stores of voiceprints."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator

import click

from speechbrain_bccmt.commands import inputs
from speechbrain_bccmt.commands.streams import one_line

# Utterances added per transaction.
BATCH = 16384


@click.group()
def voiceprints() -> None:
    """Move, re-enrol, index and purge stores of voiceprints: files, or postgresql://user@host/database."""


@voiceprints.command(name="export")
@click.argument("store")
@click.argument("file", type=click.Path(dir_okay=False))
@inputs.quiet_option
def export(store, file, quiet):
    """Export a store to a file of plain JSON.

    FILE ends in .json or .json.gz. The web page can import it too. Protect it like a password.
    """
    if not file.endswith((".json", ".json.gz")):
        raise click.UsageError(f"{file}: its ending is none of .json, .json.gz")
    from speechbrain_bccmt.voiceprints.store import Voiceprints
    from speechbrain_bccmt.voiceprints.transfer import write_file

    prints = Voiceprints(store)
    model = prints.model()
    if model is None:
        raise ValueError(f"{store}: nobody is enrolled")
    number = write_file(file, model, _counted(prints.utterances(), "Exporting", quiet))
    click.echo(f"exported {number} speaker{'' if number == 1 else 's'} to {file}")


@voiceprints.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("store")
@inputs.quiet_option
def import_(file, store, quiet):
    """Import a file written by `export` or by the web page into a store.

    Utterances that a speaker already has are not added twice; if interrupted, run it again.
    """
    from speechbrain_bccmt.voiceprints.store import Voiceprints
    from speechbrain_bccmt.voiceprints.transfer import read_file

    header, utterances = read_file(file)
    prints = Voiceprints(store, header["model"], header["source"])
    added = _add(prints, _counted(utterances, "Importing", quiet))
    click.echo(f"added {_utterances(added)} to {store}")


@voiceprints.command()
@click.argument("store")
@click.argument("new")
@inputs.model_option
@click.option(
    "--archive",
    type=click.Path(file_okay=False),
    help="Store embeddings in this folder as they are computed; a restarted run computes only the missing ones.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes, one thread each."
)
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def reenroll(store, new, model, archive, jobs, vad, device, engine, quiet):
    """Re-enrol all speakers of a store with another model.

    Embeddings of different models are not comparable: the recordings that the speakers of STORE were enrolled with are
    read again, from their original paths, and their voiceprints by MODEL are added to the store NEW. Unusable
    recordings are reported and left out, and the exit code is 2.
    """
    from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    old = Voiceprints(store)
    before = old.model()
    if before is None:
        raise ValueError(f"{store}: nobody is enrolled")
    verification = inputs.load_model(model, device, vad, engine)
    prints = Voiceprints(new, verification.fingerprint, verification.source)
    if before[0] == prints.fingerprint:
        raise ValueError(f"{store}: its voiceprints are of model {before[0]} ({model}) already")
    there = {(one.name, one.file) for one in prints.utterances()} if prints.exists() else set()
    # The properties of a recording that do not depend on the model.
    todo = [
        (one.name, one.file, {"label": one.label, "bandwidth": one.bandwidth})
        for one in old.utterances()
        if (one.name, one.file) not in there
    ]
    found, errors = _embed({file for _, file, _ in todo if file}, archive, verification, jobs, quiet)
    again = (
        EnrolledUtterance(name, *found[file], file, **about) for name, file, about in todo if file in found
    )
    added = _add(prints, again)
    failed = [
        (name, errors.get(file, "no recording is known")) for name, file, _ in todo if file not in found
    ]
    for name, error in failed:
        click.echo(f"error: {name}: {error}", err=True)
    click.echo(
        f"enrolled {_utterances(added)} in {new}; {len(there)} were there, {len(failed)} could not be used"
    )
    click.get_current_context().exit(2 if failed else 0)


@voiceprints.command()
@click.argument("store")
@click.option(
    "--memory",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    metavar="MB",
    help="Memory for the server: about 1.5 GB for a million prints; with less it takes much longer.",
)
def index(store, memory):
    """Build an index in PostgreSQL: searches among millions take milliseconds, and may occasionally miss a speaker."""
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    Voiceprints(store).build_index(memory)


@voiceprints.command()
@click.argument("store")
def purge(store):
    """Rewrite the PostgreSQL tables without traces of deleted entries; nobody can use the tables meanwhile.

    A file does not need this: deleted entries are overwritten at once.
    """
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    Voiceprints(store).purge()


def _embed(
    paths: set[str], archive: str | None, model, jobs: int, quiet: bool
) -> tuple[dict, dict[str, str]]:
    """Return the embedding and seconds of speech of each usable recording, and the errors of the others."""
    from tqdm import tqdm

    from speechbrain_bccmt.inference.archive import Archive

    ids = {path: path for path in sorted(paths)}
    with contextlib.ExitStack() as stack:
        folder = archive or stack.enter_context(tempfile.TemporaryDirectory())
        kept = Archive(folder, model, jobs)
        missing = kept.missing(ids)
        errors = {}
        with tqdm(total=len(missing), desc="Embedding", unit="file", disable=quiet or None) as bar:
            for path, result in kept.embed({path: path for path in missing}):
                if isinstance(result, Exception):
                    errors[path] = one_line(result)
                bar.update()
        names, vectors, lengths = kept.read(ids)
    found = dict(zip(names, zip(vectors, lengths[:, 1].tolist(), strict=True), strict=True))
    silent = [path for path, (_, seconds) in found.items() if seconds == 0]
    for path in silent:
        del found[path]
    return found, errors | {path: f"{path}: no speech in it" for path in silent}


def _add(prints, utterances: Iterable) -> int:
    added, utterances = 0, iter(utterances)
    while some := list(itertools.islice(utterances, BATCH)):
        added += prints.add(some)
    return added


def _counted(utterances: Iterable, description: str, quiet: bool) -> Iterator:
    from tqdm import tqdm

    return iter(tqdm(utterances, description, unit="utt", disable=quiet or None))


def _utterances(number: int) -> str:
    return f"{number} utterance{'' if number == 1 else 's'}"
