"""`bccmt identify`: identify an enrolled speaker."""

from __future__ import annotations

import json
import math

import click

from speechbrain_bccmt.commands.inputs import device_option, model_option


@click.command()
@model_option
@click.argument("store")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--n-best", type=click.IntRange(min=1), default=5, show_default=True, help="How many candidates to show."
)
@click.option(
    "--threshold",
    type=float,
    help="Score from which on the best candidate is the speaker. Default: the model's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each recording.")
@device_option
def identify(model, store, files, n_best, threshold, as_json, device):
    """Identify the enrolled speaker of each recording.

    STORE is the file that the speakers were enrolled in, MODEL the model that they were enrolled with. FILES are
    recordings, folders with recordings, or globs; - reads a list from standard input.

    The model's threshold is that of a comparison of two recordings. With many names, a stranger passes it more
    often: give a higher one.

    Exit code 0: all speakers are identified, 1: one is unknown, 2: misuse, or a recording that cannot be used.
    """
    from speechbrain_bccmt.commands.inputs import embed_each, expand_inputs, load_model, print_warnings
    from speechbrain_bccmt.commands.streams import one_line
    from speechbrain_bccmt.inference.fingerprint import fingerprint
    from speechbrain_bccmt.voiceprints.store import Identification, Voiceprints

    if threshold is not None and not math.isfinite(threshold):
        raise click.UsageError(f"--threshold is {threshold}, expected a finite number")
    paths = expand_inputs(files)
    verification = load_model(model, device)
    threshold = verification.threshold if threshold is None else threshold
    if threshold is None:
        raise click.UsageError(f"{model} ships no threshold to decide at: give one by --threshold")
    prints = Voiceprints(store, fingerprint(verification), model)
    prints.check()
    unknown = failed = 0
    for path, utterance in embed_each(verification, paths):
        if isinstance(utterance, Exception):
            failed += 1
            click.echo(f"error: {one_line(utterance)}", err=True)
            continue
        print_warnings(utterance.warnings)
        found = prints.identify(utterance.embedding[None], threshold, n_best)[0]
        if utterance.audible_seconds == 0:  # nobody's voice, whatever the score
            found = Identification(None, found.candidates)
        unknown += found.speaker is None
        click.echo(_as_json(utterance, found, threshold) if as_json else _table(path, found, threshold))
    click.get_current_context().exit(2 if failed else int(unknown > 0))


def _as_json(utterance, found, threshold: float) -> str:
    result = {
        "file": utterance.path,
        "speaker": found.speaker,
        "threshold": round(threshold, 6),
        "candidates": [{"name": c.name, "score": round(c.score, 6)} for c in found.candidates],
        "seconds": round(utterance.seconds, 3),
        "warnings": list(utterance.warnings),
    }
    return json.dumps(result, ensure_ascii=False)


def _table(path: str, found, threshold: float) -> str:
    from speechbrain_bccmt.voiceprints.names import UNKNOWN

    lines = [f"{path}: {found.speaker or UNKNOWN} (threshold {threshold:.4f})"]
    if not found.candidates:
        lines.append("  nobody is enrolled")
    width = max((len(candidate.name) for candidate in found.candidates), default=0)
    lines += [f"  {candidate.name:<{width}}  {candidate.score:7.4f}" for candidate in found.candidates]
    return "\n".join(lines)
