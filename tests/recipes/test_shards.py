"""A training from shards, as a user packs and runs it."""

import contextlib

import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.training.recipe import SpeakerBrain, build_sampler
from tests.recipes.test_recipes import row_of, run


def test_a_training_from_shards_sees_the_same_crops(corpus, models, tmp_path, monkeypatch):
    seen = []
    original = SpeakerBrain.fit_batch

    def fit_batch(self, batch):
        seen.append([(name, float(wav.sum())) for name, wav in zip(batch.id, batch.sig.data, strict=True)])
        return original(self, batch)

    monkeypatch.setattr(SpeakerBrain, "fit_batch", fit_batch)
    files, shards = {**corpus, **models}, tmp_path / "shards"
    assert run(row_of("bccmt"), tmp_path / "one", "--cache_audio=False", **files) == 0
    from_files, seen[:] = list(seen), []
    packed = CliRunner().invoke(
        cli.main, ["shards", str(tmp_path / "one" / "save" / "train.csv"), str(shards), "--size=0.05", "--quiet"]
    )
    assert packed.exit_code == 0 and "packed 16 utterances into" in packed.output
    options = f"--cache_audio=False --shards_folder={shards} --shuffle_buffer=3"
    options += " --ckpt_interval_minutes=0 --ckpt_interval_steps=1"

    class Stop(Exception):
        pass

    def stop(self, batch):
        if len(seen) == 6:
            raise Stop
        return fit_batch(self, batch)

    # Interrupted in the second epoch and started again, it goes on with the batches that are left.
    monkeypatch.setattr(SpeakerBrain, "fit_batch", stop)
    with contextlib.suppress(Stop):
        run(row_of("bccmt"), tmp_path / "two", options, **files)
    monkeypatch.setattr(SpeakerBrain, "fit_batch", fit_batch)
    assert run(row_of("bccmt"), tmp_path / "two", options, **files) == 0
    for epoch in (slice(0, 4), slice(4, 8)):
        one, other = (sorted(pair for batch in found[epoch] for pair in batch) for found in (from_files, seen))
        assert len(one) == 16 and one == other
    assert from_files != seen


def test_shards_and_weights_exclude_each_other():
    hparams = {"shards_folder": "shards", "corpus_weights": [1], "data_folder": "x"}
    with pytest.raises(ValueError, match="corpus_weights draws utterances anywhere"):
        build_sampler(hparams, None)


def test_a_corpus_is_packed_from_its_folder(corpus, tmp_path):
    for arguments, code, message in (
        ([corpus["corpus"], tmp_path / "out"], 0, "packed 32 utterances into 1 shard in"),
        ([corpus["trials"], tmp_path / "other"], 2, "is no train.csv of a recipe"),
        ([tmp_path / "nowhere", tmp_path / "other"], 2, "nowhere"),
    ):
        result = CliRunner().invoke(cli.main, ["shards", *map(str, arguments), "--quiet"])
        assert result.exit_code == code and message in result.output
