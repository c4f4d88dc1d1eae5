"""`bccmt verify`: verify that two recordings are of the same speaker."""

from __future__ import annotations

import json
import math

import click

from speechbrain_bccmt.commands.inputs import device_option, model_option


@click.command()
@model_option
@click.argument("recordings", nargs=-1, metavar="A B")
@click.option(
    "--enrol",
    "enrolment",
    multiple=True,
    metavar="FILE",
    help="A recording of side A; may be given several times. All other recordings are then side B.",
)
@click.option(
    "--threshold", type=float, help="Score from which on it is the same speaker. Default: the model's."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def verify(model, recordings, enrolment, threshold, as_json, device):
    """Verify that two recordings are of the same speaker.

    A and B are recordings; a folder or a quoted glob stands for several of one speaker. Exit code 0: same speaker, 1:
    different speakers, 2: misuse.
    """
    from speechbrain_bccmt.commands.inputs import embed_all, expand_inputs, load_model, print_warnings

    if not enrolment and len(recordings) != 2:
        raise click.UsageError(
            f"expected two recordings, got {len(recordings)}; several on side A go by --enrol"
        )
    if enrolment and not recordings:
        raise click.UsageError("expected recordings to compare with those of --enrol")
    if "-" in (*enrolment, *recordings):
        raise click.UsageError("a list on standard input does not say which side each recording is on")
    sides = (enrolment, recordings) if enrolment else (recordings[:1], recordings[1:])
    enrolment, test = (expand_inputs(side) for side in sides)
    if threshold is not None and not math.isfinite(threshold):
        raise click.UsageError(f"--threshold is {threshold}, expected a finite number")
    verification = load_model(model, device)
    threshold = verification.resolve_threshold(threshold)  # before the long work
    embedded = embed_all(verification, enrolment + test)
    utterances = ([embedded[path] for path in side] for side in (enrolment, test))
    outcome = verification.verify_utterances(*utterances, threshold)
    print_warnings(outcome.warnings)
    known = math.isfinite(outcome.probability)
    result = {
        "decision": "same" if outcome.decision else "different",
        "score": round(float(outcome.score), 6),
        "threshold": round(outcome.threshold, 6),
        "probability": round(outcome.probability, 6) if known else None,
        "llr": round(outcome.llr, 6) if known else None,
        "enrolment": enrolment,
        "test": test,
        "seconds": {utterance.path: round(utterance.seconds, 3) for utterance in outcome.utterances},
        "warnings": list(outcome.warnings),
    }
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        click.echo(_table(result))
    click.get_current_context().exit(0 if outcome.decision else 1)


def _table(result: dict) -> str:
    lines = [
        ("decision", f"{result['decision']} speaker{'s' if result['decision'] == 'different' else ''}"),
        ("score", f"{result['score']:.4f} (threshold {result['threshold']:.4f})"),
    ]
    if result["probability"] is not None:
        lines.append(("probability", f"{result['probability']:.4f} of the same speaker"))
    for side in ("enrolment", "test"):
        lines += [(side, f"{path} ({result['seconds'][path]:.2f} s)") for path in result[side]]
    return "\n".join(f"{name:<12} {value}" for name, value in lines)
