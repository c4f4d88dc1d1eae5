"""`bccmt shards`: pack the utterances of a corpus for training."""

from __future__ import annotations

import csv
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--size", type=click.FloatRange(min=0, min_open=True), default=256, show_default=True, help="MB per shard."
)
@click.option("--flac", is_flag=True, help="Decode all audio and pack it as FLAC, whatever its format.")
@click.option("--seed", type=click.IntRange(min=0), default=1986, show_default=True, help="Seed of the order.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Shards to write in parallel."
)
@inputs.quiet_option
def shards(corpus, out, size, flac, seed, jobs, quiet):
    """Pack the utterances of a corpus into tar files, which training reads with --shards_folder=OUT.

    CORPUS is the train.csv prepared by a recipe, or a folder laid out like VoxCeleb,
    wav/<speaker>/<session>/<utterance>. The files are in WebDataset format. If interrupted, run it again: finished
    shards are kept.
    """
    from speechbrain_bccmt.corpora.shards import write_shards
    from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb

    if corpus.is_dir():
        prepare_voxceleb(corpus, out / "prepared", dev_speakers=0, progress=not quiet)
        corpus = out / "prepared" / "train.csv"
    try:
        with open(corpus, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        lacking = {"ID", "wav", "start", "stop", "spk_id", "sample_rate"} - set(rows[0] if rows else ())
    except (csv.Error, UnicodeDecodeError):
        lacking = {"ID"}
    if lacking:
        raise ValueError(f"{corpus}: is no train.csv of a recipe, it has no column {min(lacking)}")
    number = write_shards(rows, out, 1e6 * size, flac, seed, jobs, progress=not quiet)
    click.echo(f"packed {len(rows)} utterances into {number} shard{'' if number == 1 else 's'} in {out}")
