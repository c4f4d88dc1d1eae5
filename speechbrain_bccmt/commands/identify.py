"""`bccmt identify`: identify an enrolled speaker."""

from __future__ import annotations

import json

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.argument("store")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--n-best", type=click.IntRange(min=1), default=5, show_default=True, help="How many candidates to show."
)
@inputs.threshold_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each recording.")
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def identify(model, store, files, n_best, threshold, as_json, vad, device, engine, quiet):
    """Identify an enrolled speaker in each recording.

    STORE is the file or database that the speakers were enrolled in, MODEL the one that they were enrolled with. FILES
    are recordings, folders with recordings, or globs; - reads a list from standard input.

    The model's own threshold is for comparing two recordings. The more speakers are enrolled, the more often a
    stranger passes it: use a higher one.

    Exit code 0: all speakers identified, 1: some unknown, 2: misuse, or a recording that cannot be used.
    """
    paths = inputs.expand_inputs(files)

    from speechbrain_bccmt.voiceprints.store import Identification, Voiceprints

    verification = inputs.load_model(model, device, vad, engine)
    threshold = verification.resolve_threshold(threshold)
    prints = Voiceprints(store, verification.fingerprint, model)
    prints.check()
    unknown = failed = 0
    for path, utterance in inputs.run_each(
        verification.embed_file, paths, "Embedding", quiet, skip_errors=True
    ):
        if utterance is None:
            failed += 1
            continue
        inputs.print_warnings(utterance.warnings)
        found = prints.identify(utterance.embedding[None], threshold, n_best)[0]
        if utterance.speech_seconds == 0:  # no speaker, whatever the score
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
        "speech_seconds": round(utterance.speech_seconds, 3),
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
