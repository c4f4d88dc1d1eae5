"""`bccmt adapt`: fit a model to the recordings of one device, room or language."""

from __future__ import annotations

import json
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.argument("files", nargs=-1, required=True)
@inputs.model_option
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier adaptation.")
@inputs.json_option
@inputs.vad_option
@inputs.quiet_option
def adapt(out, files, model, overwrite, as_json, vad, quiet):
    """Fit a model to recordings of your own device, room or language.

    FILES are recordings, folders with recordings, or globs; - reads a list from standard input. Speaker labels are not
    needed; thirty people are plenty, five the minimum. What all their recordings have in common is subtracted from
    every embedding, without any training. OUT is a model like any other: `-m OUT`. It needs its own voiceprints:
    re-enrol with `bccmt voiceprints reenroll`.

    Unusable recordings are reported and left out, and the exit code is 2.
    """
    import numpy as np

    from speechbrain_bccmt.export.hub import check_output, export_hub
    from speechbrain_bccmt.inference.domain import find_domain
    from speechbrain_bccmt.inference.model_files import CENTRED_CALIBRATION_FILE, find_file
    from speechbrain_bccmt.scoring.quality_fusion import load_calibration

    check_output(out, overwrite)  # before the long work
    paths = inputs.expand_inputs(files)
    verification = inputs.load_model(model, "cpu", vad, "auto")
    threshold = verification.resolve_threshold()
    found = []
    for path, utterance in inputs.run_each(verification.embed_file, paths, "Embedding", quiet, skip_errors=True):
        if utterance is not None and utterance.speech_seconds:
            found.append(utterance.embedding)
        elif utterance is not None:
            click.echo(f"error: {path}: has no speech: left out", err=True)
    if not found:
        raise ValueError("there is no recording with speech")
    domain = find_domain(np.stack(found), threshold)
    fitted = find_file(model, CENTRED_CALIBRATION_FILE, needed=False)
    if fitted is None:
        click.echo(
            f"warning: {model} has no {CENTRED_CALIBRATION_FILE}: its calibration is kept, and fits less well; "
            f"see bccmt calibrate -m {out}",
            err=True,
        )
    export_hub(model, out, fitted and load_calibration(fitted), overwrite=overwrite, centre=domain.centre)
    result = {"recordings": domain.recordings, "voices": domain.voices, "model": str(out)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"adapted to {domain.recordings} recordings of some {domain.voices} voices: -m {out}")
    click.get_current_context().exit(2 if len(found) < len(paths) else 0)
