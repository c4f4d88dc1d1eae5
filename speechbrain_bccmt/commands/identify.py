"""`bccmt identify`: identify an enrolled speaker."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.argument("store")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--n-best", type=click.IntRange(min=1), default=5, show_default=True, help="Number of candidates to show."
)
@click.option(
    "--threshold",
    type=float,
    callback=inputs.check_threshold,
    help="Lowest score to identify a speaker, for any number of names. Default: set by that number, with a margin.",
)
@click.option(
    "--error",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of strangers that may be mistaken for one of the names, without --threshold.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per recording.")
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def identify(model, store, files, n_best, threshold, error, as_json, vad, device, engine, quiet):
    """Identify an enrolled speaker in each recording.

    STORE is the file or database that the speakers were enrolled in, MODEL the model that they were enrolled with.
    FILES are recordings, folders with recordings, or globs; - reads a list from standard input.

    A speaker is unknown if the score is too low for the number of names, as with many names one is always close to a
    stranger, or if the next name is as good.

    Exit code 0: all speakers identified, 1: some unknown, 2: misuse, or an unusable recording.
    """
    paths = inputs.expand_inputs(files)

    from speechbrain_bccmt.scoring.quality import side_quality
    from speechbrain_bccmt.voiceprints.open_set import identify_open_set
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    verification = inputs.load_model(model, device, vad, engine)
    verification.resolve_threshold(threshold)  # raises before the long work
    if threshold is None:
        open_set, calibration = verification.open_set, verification.calibration
        open_set.threshold(1, error)
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
        if threshold is None:
            heard = utterance.speech_seconds > 0
            probe = side_quality([utterance.speech_seconds], [utterance.bandwidth]) if heard else None
            found = identify_open_set(
                prints, utterance.embedding, probe, calibration, open_set, error, n_best
            )
        else:
            found = prints.identify(utterance.embedding[None], threshold, n_best)[0]
        if utterance.speech_seconds == 0:  # no speaker, whatever the score
            found = replace(found, speaker=None)
        unknown += found.speaker is None
        click.echo(_as_json(utterance, found) if as_json else _table(path, found))
    click.get_current_context().exit(2 if failed else int(unknown > 0))


def _as_json(utterance, found) -> str:
    result = {
        "file": utterance.path,
        "speaker": found.speaker,
        "threshold": _rounded(found.threshold),
        "margin": _rounded(found.margin),
        "candidates": [{"name": c.name, "score": round(c.score, 6)} for c in found.candidates],
        "seconds": round(utterance.seconds, 3),
        "speech_seconds": round(utterance.speech_seconds, 3),
        "warnings": list(utterance.warnings),
    }
    return json.dumps(result, ensure_ascii=False)


def _table(path: str, found) -> str:
    from speechbrain_bccmt.voiceprints.names import UNKNOWN

    lines = [f"{path}: {found.speaker or UNKNOWN} {_limits(found)}".rstrip()]
    if not found.candidates:
        lines.append("  nobody is enrolled")
    width = max((len(candidate.name) for candidate in found.candidates), default=0)
    lines += [f"  {candidate.name:<{width}}  {candidate.score:7.4f}" for candidate in found.candidates]
    return "\n".join(lines)


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _limits(found) -> str:
    limits = [] if math.isnan(found.threshold) else [f"threshold {found.threshold:.4f}"]
    limits += [f"margin {found.margin:.4f}"] if math.isfinite(found.margin) else []
    return f"({', '.join(limits)})" if limits else ""
