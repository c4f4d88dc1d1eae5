"""The learning rate of the voice encoder, and what makes up a training class."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_bccmt import VoicePhraseEmbedder
from speechbrain_bccmt.training.voice_phrase_brain import PhraseClasses, VoicePhraseBrain


def test_each_stage_learns_slower_than_the_one_above():
    model = VoicePhraseEmbedder()
    brain = SimpleNamespace(
        hparams=SimpleNamespace(embedding_model=model, encoder_lr=0.1, layer_decay=0.5)
    )
    factors = {}
    for name, _ in model.named_parameters():
        inside = name.partition("front_end.")[2].split(".")
        part = f"{inside[0]} {inside[1]}" if inside[0] in ("stages", "downsamples") else inside[0]
        factors.setdefault(part, set()).add(VoicePhraseBrain._lr_factor(brain, name))
    assert factors.pop("") == {1.0}
    assert all(factors.pop(part) == {0.1} for part in ("pooling", "pooling_norm", "embedding"))
    assert factors.pop("stem") == {0.1 * 0.5**5}
    for stage in range(4):
        expected = {0.1 * 0.5 ** (4 - stage)}
        assert all(factors.pop(f"{kind} {stage}") == expected for kind in ("stages", "downsamples"))
    assert not factors


def test_a_faster_speaker_is_another_and_a_phrase_the_same():
    labels = ["ada/hello", "ada/yes/no", "bela/hello"]
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(labels)
    classes = PhraseClasses(SimpleNamespace(encoder=encoder, speeds=[100, 90], n_classes=6))
    assert classes.speakers.tolist() == [0, 0, 1, 2, 2, 3] and classes.n_speakers == 4
    assert torch.equal(classes.phrases, torch.tensor([0, 1, 0, 0, 1, 0]))
    assert classes.count("phrase") == 2 and classes.count("speaker-phrase") == 6
    with pytest.raises(ValueError, match="phrase_class is 'word'"):
        classes.count("word")
