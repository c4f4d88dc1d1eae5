"""`bccmt attention`: plot attention maps of recordings."""

from __future__ import annotations

import json

import click

from speechbrain_bccmt.commands.inputs import device_option, model_option


@click.command()
@model_option
@click.argument("clips", nargs=-1, required=True, metavar="CLIP...")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="The plot to write: .png, .svg or .pdf."
)
@click.option(
    "--block",
    "blocks",
    multiple=True,
    type=click.IntRange(min=1),
    help="Which attention block, from 1; repeat for several. Default: the last.",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    type=click.Choice(["class", "distillation"]),
    help="Which token; repeat for both. Default: all that the model has.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the tokens' weights, a line of JSON for each clip."
)
@device_option
def attention(model, clips, output, blocks, tokens, as_json, device):
    """Plot attention maps of recordings, below their spectrograms.

    CLIPs are recordings, folders with recordings, or globs; - reads a list from standard input. Several are plotted
    side by side, each up to its first 10 s.

    Of a TokenEmbedder, the weights that its tokens give to each moment are plotted, head by head; of a BC-CMT encoder,
    which moments each moment attends to, as the mean of the heads.
    """
    from pathlib import Path

    from speechbrain_bccmt.attention.clip_attention import MAX_CLIPS, attend_to_clip, plot_clips
    from speechbrain_bccmt.commands.inputs import expand_inputs, load_model, print_warnings
    from speechbrain_bccmt.figures import FORMATS

    if output is None and not as_json:
        raise click.UsageError("nothing to write: name a plot by -o, or ask for numbers by --json")
    if output is not None and Path(output).suffix.lower() not in FORMATS:
        raise click.UsageError(f"{output}: its ending is none of {', '.join(FORMATS)}")
    paths = expand_inputs(clips)
    if output is not None and len(paths) > MAX_CLIPS:
        raise click.UsageError(f"a plot holds at most {MAX_CLIPS} clips, got {len(paths)}")
    verification = load_model(model, device)
    attended = []
    for path in paths:
        clip = attend_to_clip(verification, path, blocks, tokens)
        print_warnings(clip.warnings)
        if as_json and not clip.token_weights:
            raise ValueError(f"{model}: --json prints the weights of tokens, and this model has none; use -o")
        if as_json:
            entry = {"clip": path, "seconds": round(clip.seconds, 3), "attention": clip.describe()}
            click.echo(json.dumps(entry, ensure_ascii=False))
        if output is not None:
            attended.append(clip)
    if attended:
        plot_clips(attended, output)
