"""`bccmt attention`: plot attention maps of recordings."""

from __future__ import annotations

import json

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Plot to write: .png, .svg or .pdf.")
@click.option(
    "--block",
    "blocks",
    multiple=True,
    type=click.IntRange(min=1),
    help="Attention block, from 1; repeat for several. Default: the last.",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    type=click.Choice(["class", "distillation"]),
    help="Token whose weights to plot; repeat for both. Default: all of the model's tokens.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the tokens' weights, one line of JSON per recording."
)
@inputs.vad_option
@inputs.device_option
@inputs.quiet_option
def attention(model, files, output, blocks, tokens, as_json, vad, device, quiet):
    """Plot attention maps of recordings, below their spectrograms.

    FILES are recordings, folders with recordings, or globs; - reads a list from standard input. Several recordings are
    plotted side by side, the first 10 s of each.

    For a TokenEmbedder, the plot shows the weight of each frame in each head of its tokens; for a BC-CMT encoder,
    which frames each frame attends to, averaged over heads.
    """
    if output is None and not as_json:
        raise click.UsageError("nothing to write: name a plot by -o, or ask for numbers by --json")
    paths = inputs.expand_inputs(files)

    from speechbrain_bccmt.attention.clip_attention import MAX_CLIPS, attend_to_clip, plot_clips
    from speechbrain_bccmt.figures import FORMATS

    inputs.check_ending(output, FORMATS)
    if output is not None and len(paths) > MAX_CLIPS:
        raise click.UsageError(f"a plot holds at most {MAX_CLIPS} recordings, got {len(paths)}")
    verification = inputs.load_model(model, device, vad)
    clips = []
    for path, clip in inputs.run_each(
        lambda path: attend_to_clip(verification, path, blocks, tokens), paths, "Attending", quiet
    ):
        inputs.print_warnings(clip.warnings)
        if as_json and not clip.token_weights:
            raise ValueError(f"{model}: --json prints the weights of tokens, and this model has none; use -o")
        if as_json:
            entry = {"clip": path, "seconds": round(clip.seconds, 3), "attention": clip.describe()}
            click.echo(json.dumps(entry, ensure_ascii=False))
        if output is not None:
            clips.append(clip)
    if clips:
        plot_clips(clips, output)
