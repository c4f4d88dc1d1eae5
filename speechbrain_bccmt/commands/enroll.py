"""`bccmt enroll`: enrol speakers by name, list and delete them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs

# Length of one microphone recording.
TAKE_SECONDS = 5.0


@click.command()
@click.argument("arguments", nargs=-1, metavar="STORE NAME [FILES...]")
@inputs.model_option
@click.option("--interactive", is_flag=True, help="Record with the microphone until there is enough speech.")
@click.option("--label", default="", metavar="TEXT", help="How it was recorded: headset, phone, room.")
@click.option("--force", is_flag=True, help="Enrol even a different voice than before, or two voices.")
@click.option(
    "--phrase",
    is_flag=True,
    help="Require all recordings of NAME to say the same phrase. Needs a model trained on phrases.",
)
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
def enroll(
    arguments,
    model,
    interactive,
    label,
    force,
    phrase,
    replace,
    listing,
    delete,
    as_json,
    vad,
    device,
    engine,
    quiet,
):
    """Enrol speakers by name.

    STORE is a file of voiceprints, created if missing, or postgresql://user@host/database. FILES are recordings of the
    speaker NAME, folders with recordings, or globs; - reads a list from standard input. They are added to those that
    NAME already has; several make a better voiceprint than one. The command reports how much of the speech needed for
    a voiceprint there is, and what is wrong with a recording.

    Either all FILES are enrolled or none: if one is unusable, has no speech, or has a different voice from the earlier
    ones, it is reported and the exit code is 2. A store holds the voiceprints of one model, and refuses another.
    """
    if listing or delete is not None:
        if (listing and delete is not None) or replace or interactive or len(arguments) != 1:
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
    if interactive and len(arguments) != 2:
        raise click.UsageError("expected STORE NAME --interactive, without files")
    if not interactive and len(arguments) < 3:
        raise click.UsageError("expected STORE NAME FILES..., or --list STORE, or --delete NAME STORE")
    store, name, *files = arguments
    load = partial(inputs.load_model, model, device, vad, engine)
    result = _enroll(load, model, store, name, files, label, force, phrase, replace, quiet or as_json)
    if as_json:
        click.echo(_as_json(result))
    else:
        again = result["files"] - result["added"]
        click.echo(
            f"enrolled {result['name']}: {_utterances(result['added'])}, {result['seconds']:.1f} s of speech"
            + (f"; {again} {'was' if again == 1 else 'were'} enrolled already" if again else "")
            + f"; {result['percent']} % of the speech that a voiceprint needs"
        )


def _enroll(
    load: Callable,
    model: str,
    store: str,
    name: str,
    files: list[str],
    label,
    force,
    phrase,
    replace: bool,
    quiet,
) -> dict:
    from speechbrain_bccmt.voiceprints.guidance import Enrolment
    from speechbrain_bccmt.voiceprints.names import check_label, check_name
    from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    name, label, before = check_name(name), check_label(label) if label else "", None
    paths = inputs.expand_inputs(files) if files else []
    verification = load()
    prints = Voiceprints(store, verification.fingerprint, model)
    if prints.exists():
        prints.check()  # before the long work
        before = None if replace else prints.reference(name)
    phrases = None
    if phrase:
        from speechbrain_bccmt.inference.phrases import check_phrases

        phrases = check_phrases(verification)
    enrolment = Enrolment(verification.calibration, before, phrases)
    if files:
        takes = _take_files(verification, enrolment, paths, force, quiet)
    else:
        takes = _take_microphone(verification, enrolment, force)
    # Absolute paths, so that re-enrolment with another model finds them.
    origins = [os.path.abspath(path) for path in paths] or ["microphone"] * len(takes)
    added = prints.add(
        (
            EnrolledUtterance(
                name, one.embedding, one.speech_seconds, file, label=label, bandwidth=one.bandwidth
            )
            for one, file in zip(takes, origins, strict=True)
        ),
        replace,
    )
    seconds = round(sum(utterance.speech_seconds for utterance in takes), 3)
    return {
        "name": name,
        "files": len(takes),
        "added": added,
        "seconds": seconds,
        "percent": enrolment.percent,
    }


def _take(verification, enrolment, path: str, force: bool):
    """Embed a recording, look for a second voice, and return the utterance and the advice on it."""
    from speechbrain_bccmt.inference.voices import check_voices

    utterance, second = verification.embed_file(path), None
    # If embeddings include the phrase, stretches of one voice differ.
    if verification.calibration and not verification.phrase_fusion and utterance.speech_seconds:
        second = check_voices(verification, path).places
    return utterance, enrolment.add(utterance, second, force)


def _take_files(verification, enrolment, paths: list[str], force: bool, quiet: bool) -> list:
    takes, warnings = [], []
    for path, (utterance, advice) in inputs.run_each(
        lambda path: _take(verification, enrolment, path, force), paths, "Embedding", quiet
    ):
        if utterance.speech_seconds == 0:
            raise ValueError(f"{utterance.warnings[0]}: nothing is enrolled")
        if not advice.accepted:
            raise ValueError(
                f"{path}: {', '.join(advice.reasons)}: nothing is enrolled (--force enrols it nevertheless)"
            )
        told = [text.removeprefix(f"{path}: ") for text in utterance.warnings]
        reasons = [
            text for text in advice.reasons if text.split(",")[0] not in [t.split(",")[0] for t in told]
        ]
        warnings += [f"{path}: {text}" for text in (*told, *reasons)]
        takes.append(utterance)
    inputs.print_warnings(dict.fromkeys(warnings))
    return takes


def _take_microphone(verification, enrolment, force: bool) -> list:
    """Record until there is enough speech, and report the use of each recording."""
    import tempfile

    import numpy as np
    import soundfile

    from speechbrain_bccmt.commands.microphone import Microphone

    source, takes = Microphone(), []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "recording.wav")
        while enrolment.percent < 100:
            answer = click.prompt(
                f"{enrolment.percent} %: press Enter and speak for {TAKE_SECONDS:g} s, or q to stop",
                default="",
                show_default=False,
                err=True,
            )
            if answer.strip().lower() == "q":
                break
            soundfile.write(path, np.concatenate(list(source.chunks(TAKE_SECONDS))), source.sample_rate)
            utterance, advice = _take(verification, enrolment, path, force)
            click.echo(
                f"{'taken' if advice.accepted else 'not taken'}, {utterance.speech_seconds:.1f} s of speech"
                + "".join(f"; {reason}" for reason in advice.reasons),
                err=True,
            )
            if advice.accepted:
                takes.append(utterance)
    if not takes:
        raise ValueError("nothing was recorded that could be enrolled")
    return takes


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
        f"{speaker.last_enrolled[:19].replace('T', ' ')}" + "".join(f"  {label}" for label in speaker.labels)
        for speaker in speakers
    ]
    return "\n".join(lines)
