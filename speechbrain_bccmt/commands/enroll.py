"""`bccmt enroll`: enrol speakers by name, list and delete them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@click.argument("arguments", nargs=-1, metavar="STORE NAME FILES...")
@inputs.model_option
@click.option("--replace", is_flag=True, help="Delete the earlier utterances of NAME first.")
@click.option(
    "--list", "listing", is_flag=True, help="List the enrolled speakers: bccmt enroll --list STORE."
)
@click.option("--delete", metavar="NAME", help="Delete a speaker: bccmt enroll --delete NAME STORE.")
@inputs.json_option
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def enroll(arguments, model, replace, listing, delete, as_json, vad, device, engine, quiet):
    """Enrol speakers by name.

    STORE is a file of voiceprints, created if missing, or postgresql://user@host/database. FILES are recordings of the
    speaker NAME, folders with recordings, or globs; - reads a list from standard input. They are added to those that
    NAME has; several make a better voiceprint than one.

    Either all FILES are enrolled or none: one that cannot be used, or has no speech, is reported, and the exit code is
    2. A store holds the voiceprints of one model, and refuses another.
    """
    if listing or delete is not None:
        if (listing and delete is not None) or replace or len(arguments) != 1:
            raise click.UsageError("expected --list STORE, or --delete NAME STORE")
        from speechbrain_bccmt.voiceprints.store import Voiceprints

        prints = Voiceprints(arguments[0])
        if listing:
            speakers = prints.speakers()
            click.echo(_as_json([asdict(speaker) for speaker in speakers]) if as_json else _table(speakers))
        else:
            number = prints.delete(delete)
            result = {"deleted": delete, "utterances": number}
            click.echo(_as_json(result) if as_json else f"deleted {delete} ({_utterances(number)})")
        return
    if len(arguments) < 3:
        raise click.UsageError("expected STORE NAME FILES..., or --list STORE, or --delete NAME STORE")
    store, name, *files = arguments
    result = _enroll(model, store, name, files, replace, vad, device, engine, quiet)
    if as_json:
        click.echo(_as_json(result))
    else:
        again = result["files"] - result["added"]
        click.echo(
            f"enrolled {result['name']}: {_utterances(result['added'])}, {result['seconds']:.1f} s of speech"
            + (f"; {again} {'was' if again == 1 else 'were'} enrolled already" if again else "")
        )


def _enroll(
    model: str, store: str, name: str, files: list[str], replace: bool, vad: bool, device, engine, quiet: bool
) -> dict:
    from speechbrain_bccmt.voiceprints.names import check_name
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    name, paths = check_name(name), inputs.expand_inputs(files)
    verification = inputs.load_model(model, device, vad, engine)
    prints = Voiceprints(store, verification.fingerprint, model)
    if prints.exists():
        prints.check()  # before the long work
    utterances = [
        utterance for _, utterance in inputs.run_each(verification.embed_file, paths, "Embedding", quiet)
    ]
    for utterance in utterances:
        if utterance.speech_seconds == 0:
            raise ValueError(f"{utterance.warnings[0]}: nothing is enrolled")
    inputs.print_warnings(dict.fromkeys(text for utterance in utterances for text in utterance.warnings))
    added = prints.enroll(
        name,
        [utterance.embedding for utterance in utterances],
        [utterance.speech_seconds for utterance in utterances],
        [os.path.abspath(path) for path in paths],  # to be found again by another model
        replace,
    )
    seconds = round(sum(utterance.speech_seconds for utterance in utterances), 3)
    return {"name": name, "files": len(paths), "added": added, "seconds": seconds}


def _as_json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _utterances(number: int) -> str:
    return f"{number} utterance{'' if number == 1 else 's'}"


def _table(speakers: list) -> str:
    if not speakers:
        return "nobody is enrolled"
    width = max(4, *(len(speaker.name) for speaker in speakers))
    lines = [f"{'name':<{width}}  utterances  seconds  last enrolled (UTC)"]
    lines += [
        f"{speaker.name:<{width}}  {speaker.utterances:>10}  {speaker.seconds:>7.1f}  "
        f"{speaker.last_enrolled[:19].replace('T', ' ')}"
        for speaker in speakers
    ]
    return "\n".join(lines)
