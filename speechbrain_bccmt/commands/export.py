"""`bccmt export`: export a trained model as a hub folder, as ONNX files, or as a web page."""

from __future__ import annotations

from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs

INT8 = ("dynamic", "static")
WEIGHTS = ("float16", "int8")


@click.group()
def export() -> None:
    """Export a trained model to a hub folder, to ONNX, or as a web page."""


@export.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@inputs.model_option
@click.option("--calibration", type=click.Path(path_type=Path), help="Calibration JSON to ship.")
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="scores.txt of a verification, to fit the calibration on and to report error rates from in the card.",
)
@click.option(
    "--p-target",
    default=0.01,
    show_default=True,
    help="Prior of a target trial for the calibration on --scores.",
)
@click.option("--test-set", help="Name of the trials of --scores, for the card.")
@click.option("--data", help="Training data of the model, for the card.")
@click.option(
    "--license", "--licence", "licence", help="Licence of the parameters, such as cc-by-4.0, for the card."
)
@click.option("--language", help="Language codes of the training data, such as en,zh, for the card.")
@click.option(
    "--example",
    "examples",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Recording to publish with the model; give two of one speaker. Use only recordings whose speaker and licence "
    "allow it, or synthetic speech from `python -m speechbrain_bccmt.demo_corpus`.",
)
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier export.")
@click.option("--push", "repo_id", metavar="OWNER/MODEL", help="Upload to the HuggingFace hub.")
@click.option("--private", is_flag=True, help="Make the repository private if --push creates it.")
def hub(
    out,
    model,
    calibration,
    scores,
    p_target,
    test_set,
    data,
    licence,
    language,
    examples,
    overwrite,
    repo_id,
    private,
):
    """Export a trained model to a folder that SpeechBrain and this package load.

    MODEL is the output folder of a training, or any other model. OUT gets hyperparams.yaml,
    config.json, the parameters (.ckpt and .safetensors), the label encoder, calibration.json and a model card.
    """
    from speechbrain_bccmt.export.hub import export_hub, push_to_hub
    from speechbrain_bccmt.inference.model_files import HUB_ID
    from speechbrain_bccmt.scoring.calibration import Calibration
    from speechbrain_bccmt.scoring.quality_fusion import load_calibration

    if repo_id and not HUB_ID.fullmatch(repo_id):
        raise click.UsageError(f"--push {repo_id}: expected OWNER/MODEL")
    if calibration and scores:
        raise click.UsageError("give --calibration or --scores, not both")
    results = fitted = None
    if scores:
        from speechbrain_bccmt.evaluation.summary import summarise
        from speechbrain_bccmt.trials.scores import read_scores

        scored = read_scores(scores)
        values, target = scored.scores, scored.target
        results = summarise(values, target)
        test_set = test_set or scores.name
        fitted = Calibration.fit(values[target], values[~target], p_target=p_target, fitted_on=test_set)
    elif calibration:
        fitted = load_calibration(calibration)
    card = {"results": results, "test_set": test_set, "data": data, "licence": licence, "language": language}
    if repo_id:
        card["model"] = repo_id
    export_hub(model, out, fitted, card, examples, overwrite)
    click.echo(f"Wrote {out}", err=True)
    if not (out / "calibration.json").is_file():
        click.echo("No threshold is shipped: give --scores or --calibration.", err=True)
    if licence is None:
        click.echo("The card names no licence: give --license.", err=True)
    if not examples:
        click.echo("The card has no example clips: give two by --example.", err=True)
    if repo_id:
        click.echo(push_to_hub(out, repo_id, private))


@export.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@inputs.model_option
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    type=click.Choice(["features", "waveform", "sherpa"]),
    help="Graph to write; repeat for several. Default: features, waveform, and sherpa if the model allows.",
)
@click.option("--with-lengths", is_flag=True, help="Add an input for the lengths of padded batches.")
@click.option("--language", default="unknown", show_default=True, help="Language for sherpa-onnx to show.")
@click.option(
    "--weights",
    multiple=True,
    type=click.Choice(WEIGHTS),
    help="Also write smaller files with weights stored in this type, but computed with as floats; repeat for both.",
)
@click.option(
    "--int8",
    multiple=True,
    type=click.Choice(INT8),
    help="Also write graphs that compute in 8 bits; repeat for both.",
)
@click.option(
    "--speech",
    multiple=True,
    metavar="FILES",
    help="Recording, folder or glob to calibrate `--int8 static` on; repeat for several.",
)
@click.option(
    "--utterances",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Recordings of --speech to calibrate on, spread evenly.",
)
def onnx(out, model, graphs, with_lengths, language, weights, int8, speech, utterances):
    """Export a model to ONNX graphs in the folder OUT: features.onnx, waveform.onnx and sherpa.onnx.

    The first takes the features of the model's front end, the second waveforms in [-1, 1]. The third is for
    sherpa-onnx, which computes its own Kaldi features.
    """
    if ("static" in int8) != bool(speech):
        raise click.UsageError("--int8 static and --speech go together: static ranges are measured on speech")
    if int8 and with_lengths:
        raise click.UsageError("8-bit graphs are made without lengths: leave out --with-lengths")
    files = _choose_speech(speech, utterances) if speech else []

    from speechbrain_bccmt.export.onnx import export_onnx
    from speechbrain_bccmt.export.quantise import quantise_dynamic, quantise_static, read_inputs
    from speechbrain_bccmt.export.sherpa import fits_sherpa
    from speechbrain_bccmt.export.weights import shrink_weights
    from speechbrain_bccmt.inference.model_folder import load_speaker_model

    loaded = load_speaker_model(model)
    chosen = bool(graphs)
    if not chosen:
        graphs = ("features", "waveform", "sherpa")[: 3 if fits_sherpa(loaded) and not with_lengths else 2]
    for graph in dict.fromkeys(graphs):
        metadata = {"language": language} if graph == "sherpa" else {}
        path = export_onnx(loaded, out / f"{graph}.onnx", graph, with_lengths, metadata)
        written = [path]
        for stored in dict.fromkeys(weights):
            written.append(shrink_weights(path, path.with_suffix(f".{stored}-weights.onnx"), stored))
        if "dynamic" in int8:
            written.append(quantise_dynamic(path, path.with_suffix(".int8-dynamic.onnx")))
        if "static" in int8:
            arrays = read_inputs(loaded, files, graph)
            written.append(
                quantise_static(path, path.with_suffix(".int8-static.onnx"), arrays, progress=True)
            )
        for file in written:
            click.echo(f"{file} ({file.stat().st_size / 1e6:.2f} MB)")
    if not chosen and "sherpa" not in graphs:
        click.echo("No graph for sherpa-onnx: --graph sherpa writes it, or says why it cannot.", err=True)


@export.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@inputs.model_option
def web(out, model):
    """Export a web page that enrols, verifies and identifies speakers entirely in the browser.

    OUT gets static files for any web server; `python -m http.server -d OUT` serves them on this machine. Recordings and
    voiceprints stay in the browser, and after the first load the page works offline.
    """
    from speechbrain_bccmt.export.web import PAGE, check_page, export_web
    from speechbrain_bccmt.inference.model_folder import load_speaker_model

    check_page(PAGE)  # before the long work
    loaded = load_speaker_model(model)
    written = export_web(loaded, out, PAGE)
    click.echo(f"{out} ({sum(path.stat().st_size for path in written) / 1e6:.2f} MB)")
    if loaded.calibration is None:
        click.echo("The model ships no calibration: the page shows scores, and decides nothing.", err=True)


def _choose_speech(speech: tuple[str, ...], count: int) -> list[Path]:
    """Return at most `count` recordings, spread evenly over all that are named."""
    files = [Path(path) for path in inputs.expand_inputs(speech)]
    if missing := [path for path in files if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]}: there is no such file")
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]
