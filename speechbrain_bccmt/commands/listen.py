"""`bccmt listen`: verify somebody while they speak."""

from __future__ import annotations

import json
import math
import sys

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.argument("store")
@click.argument("name")
@click.option("--file", "path", metavar="FILE", help="Play a recording as if it came from the microphone.")
@click.option("--fast", is_flag=True, help="Play --file as fast as it can be verified.")
@click.option(
    "--error",
    type=float,
    default=0.01,
    show_default=True,
    help="Allowed share of wrong decisions of either kind; a smaller one takes more speech.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time, decided or not."
)
@click.option("--on", is_flag=True, help="Continue after the decision, until the end or Ctrl-C.")
@click.option("--microphone", metavar="DEVICE", help="Name or number of the input. Default: the system's.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per change of the score.")
@inputs.device_option
@inputs.engine_option
def listen(model, store, name, path, fast, error, seconds, on, microphone, as_json, device, engine):
    """Verify somebody while they speak.

    NAME is enrolled in STORE, a file or database. Listening ends with a decision, once the requested error rate is
    reached.

    Exit code 0: it is NAME, 1: it is somebody else, or undecided at the end, 2: misuse.
    """
    if fast and path is None:
        raise click.UsageError("--fast is for --file")
    if path is not None and microphone is not None:
        raise click.UsageError("either --file or --microphone")

    from speechbrain_bccmt.commands.microphone import Microphone, Playback
    from speechbrain_bccmt.voiceprints.names import check_name
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    name = check_name(name)
    verification = inputs.load_model(model, device, engine=engine)
    reference = Voiceprints(store, verification.fingerprint, model).reference(name)
    if reference is None:
        raise ValueError(f"{store}: no speaker '{name}' is enrolled")
    source = Playback(path, fast) if path is not None else Microphone(microphone)
    stream = verification.stream(reference, source.sample_rate, error)
    bar = not as_json and sys.stderr is not None and sys.stderr.isatty()
    if path is None:
        click.echo("listening, Ctrl-C ends it", err=True)
    told = math.nan
    for chunk in source.chunks(seconds):
        state = stream.feed(chunk)
        if bar:
            click.echo(f"\r{_line(state)}", nl=False, err=True)
        if as_json and state.score != told and not math.isnan(state.score):
            told = state.score
            click.echo(_as_json(state))
        if state.decision is not None and not on:
            break
    if bar:
        click.echo("", err=True)
    if stream.state.decision is None or on:
        utterance = stream.finish()
        inputs.print_warnings(text.removeprefix(f"{stream.name}: ") for text in utterance.warnings)
    state = stream.state
    if as_json:
        click.echo(_as_json(state))
    else:
        verdict = {True: f"it is {name}", False: f"it is not {name}", None: "undecided"}[state.decision]
        after = "" if state.decided_after is None else f", after {state.decided_after:.1f} s of speech"
        click.echo(f"{verdict}{after} ({_line(state)})")
    click.get_current_context().exit(0 if state.decision else 1)


def _line(state) -> str:
    score = (
        "" if math.isnan(state.score) else f", score {state.score:6.3f}, probability {state.probability:.3f}"
    )
    return f"{state.speech_seconds:.1f} s of speech in {state.seconds:.1f} s{score}"


def _as_json(state) -> str:
    numbers = {
        key: round(value, 6) if isinstance(value, float) and not math.isnan(value) else None
        for key, value in vars(state).items()
        if key != "decision"
    }
    decision = {True: "same", False: "different", None: "not yet"}[state.decision]
    return json.dumps({"decision": decision} | numbers)
