"""`bccmt trials`: draw a trial list over the utterances of a corpus."""

from __future__ import annotations

from pathlib import Path

import click

FORMATS = ("voxceleb", "kaldi", "sdsv", "csv")


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--targets", type=click.IntRange(1), default=5000, show_default=True, help="Target trials to draw."
)
@click.option(
    "--nontargets", type=click.IntRange(1), default=5000, show_default=True, help="Non-target trials to draw."
)
@click.option("--seed", type=click.IntRange(min=0), default=1986, show_default=True, help="Seed of the draw.")
@click.option(
    "--within", metavar="COLUMN", help="Column, such as gender, that both speakers of a trial share."
)
@click.option(
    "--embeddings", metavar="FILE", help="From `bccmt embed --root`, to draw hard non-target trials."
)
@click.option(
    "--nearest",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="With --embeddings: pair a speaker with this many of the most similar speakers.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="voxceleb",
    show_default=True,
    help="Format of OUT.",
)
def trials(corpus, out, targets, nontargets, seed, within, embeddings, nearest, kind):
    """Draw a random trial list in which each speaker has the same weight.

    CORPUS is a folder laid out like VoxCeleb, wav/<speaker>/<session>/<utterance>, or a CSV with the columns ID (or
    utterance) and spk_id (or speaker). OUT is the list to write, gzipped if it ends in .gz. If there are fewer trials
    than requested, all are used. Target trials pair different sessions of speakers who have several.
    """
    from speechbrain_bccmt.corpora.layout import find_utterances
    from speechbrain_bccmt.trials.draw import make_trials, read_speakers
    from speechbrain_bccmt.trials.read import speaker_of, write_trials

    groups = None
    if not corpus.is_dir():
        ids, speakers, groups = read_speakers(corpus, within)
    elif within:
        raise click.UsageError("--within needs a CSV: a folder has no columns")
    else:
        ids = list(find_utterances([str(corpus)]))
        speakers = [speaker_of(utterance) for utterance in ids]
    vectors = None
    if embeddings:
        from speechbrain_bccmt.inference.embedding_files import read_embeddings

        read = read_embeddings(embeddings)
        vectors = read.vectors[read.rows_of(ids)]
    drawn = make_trials(
        ids, speakers, targets, nontargets, seed, groups=groups, embeddings=vectors, nearest=nearest
    )
    write_trials(out, drawn, kind)
    n_targets = int(drawn.target.sum())
    click.echo(
        f"Wrote {out}: {n_targets:,} target and {len(drawn) - n_targets:,} non-target trials of "
        f"{len(set(speakers)):,} speakers",
        err=True,
    )
