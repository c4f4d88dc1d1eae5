"""`bccmt verify`: verify that two recordings are of the same speaker."""

from __future__ import annotations

import json
import math

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.argument("recordings", nargs=-1, metavar="A B")
@click.option(
    "--enrol",
    "enrolment",
    multiple=True,
    metavar="FILE",
    help="Recording of side A; repeat for several. All other recordings are then side B.",
)
@click.option(
    "--phrase",
    is_flag=True,
    help="Verify the same speaker saying the same phrase, and report which of the two is wrong. Needs a model trained "
    "on phrases.",
)
@inputs.threshold_option
@click.option("--check-voices", is_flag=True, help="Warn about a second voice; doubles the run time.")
@inputs.json_option
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
def verify(model, recordings, enrolment, phrase, threshold, check_voices, as_json, vad, device, engine):
    """Verify that two recordings are of the same speaker.

    A and B are recordings; a folder or a quoted glob stands for several recordings of one speaker.

    Exit code 0: same speaker (and phrase), 1: different ones, 2: misuse, or an unusable recording.
    """
    if not enrolment and len(recordings) != 2:
        raise click.UsageError(
            f"expected two recordings, got {len(recordings)}; several on side A go by --enrol"
        )
    if enrolment and not recordings:
        raise click.UsageError("expected recordings to compare with those of --enrol")
    if "-" in (*enrolment, *recordings):
        raise click.UsageError("- does not say which side each recording of a list is on: name the files")
    if phrase and (threshold is not None or check_voices):
        raise click.UsageError("--phrase decides by two scores: it takes no --threshold and no --check-voices")
    sides = (enrolment, recordings) if enrolment else (recordings[:1], recordings[1:])
    enrolment, test = (inputs.expand_inputs(side) for side in sides)
    verification = inputs.load_model(model, device, vad, engine)
    if phrase:
        from speechbrain_bccmt.inference.phrases import check_phrases, verify_phrase

        check_phrases(verification)
    else:
        verification.resolve_threshold(threshold)  # both raise before the long work
    embedded = dict(inputs.run_each(verification.embed_file, dict.fromkeys(enrolment + test), "Embedding"))
    utterances = ([embedded[path] for path in side] for side in (enrolment, test))
    if phrase:
        verdict = verify_phrase(verification, *utterances)
        result = _phrase_result(verdict)
    else:
        verdict = verification.verify_utterances(*utterances, threshold)
        result = _result(verdict)
    warnings = [*verdict.warnings, *(_second_voices(verification, embedded.values()) if check_voices else ())]
    inputs.print_warnings(warnings)
    result |= {
        "enrolment": enrolment,
        "test": test,
        "seconds": {utterance.path: round(utterance.seconds, 3) for utterance in verdict.utterances},
        "speech_seconds": {
            utterance.path: round(utterance.speech_seconds, 3) for utterance in verdict.utterances
        },
        "warnings": warnings,
    }
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _table(result))
    click.get_current_context().exit(0 if verdict.decision else 1)


def _second_voices(verification, utterances) -> list[str]:
    from speechbrain_bccmt.inference.voices import check_voices

    found = [
        (utterance.path, check_voices(verification, utterance.path))
        for utterance in utterances
        if utterance.speech_seconds
    ]
    return [f"{path}: maybe two voices, the second at {check.places}" for path, check in found if check.times]


def _result(verdict) -> dict:
    known = math.isfinite(verdict.probability)
    return {
        "decision": "same" if verdict.decision else "different",
        "score": round(float(verdict.score), 6),
        "threshold": round(verdict.threshold, 6),
        "probability": round(verdict.probability, 6) if known else None,
        "llr": round(verdict.llr, 6) if known else None,
    }


def _phrase_result(verdict) -> dict:
    return {
        "decision": "same" if verdict.decision else "different",
        "reason": verdict.reason,
        "voice_score": round(verdict.voice_score, 6),
        "phrase_score": round(verdict.phrase_score, 6),
        "probability": round(verdict.probability, 6),
    }


def _table(result: dict) -> str:
    probability = result["probability"]
    if "reason" in result:
        lines = [
            ("decision", f"{'accepted' if result['decision'] == 'same' else 'rejected'}: {result['reason']}"),
            ("scores", f"voice {result['voice_score']:.4f}, phrase {result['phrase_score']:.4f}"),
            ("probability", f"{probability:.4f} of the same speaker and phrase"),
        ]
    else:
        lines = [
            ("decision", f"{result['decision']} speaker{'s' if result['decision'] == 'different' else ''}"),
            ("score", f"{result['score']:.4f} (threshold {result['threshold']:.4f})"),
        ]
        if probability is not None:
            lines.append(("probability", f"{probability:.4f} of the same speaker"))
    for side in ("enrolment", "test"):
        lines += [
            (
                side,
                f"{path} ({result['speech_seconds'][path]:.2f} s of speech in {result['seconds'][path]:.2f} s)",
            )
            for path in result[side]
        ]
    return "\n".join(f"{name:<12} {value}" for name, value in lines)
