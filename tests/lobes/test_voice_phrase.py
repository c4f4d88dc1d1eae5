"""Voice and phrase in one embedding."""

import pytest
import torch
import torch.nn.functional as F

from speechbrain_bccmt import VoicePhraseEmbedder, bccmt_tiny


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_cosine_is_the_weighted_mean_of_those_of_the_parts(weight):
    model = VoicePhraseEmbedder(phrase_weight=weight).eval()
    x = torch.randn(2, 50, 80)
    whole, (voice, phrase) = model(x), model.forward_parts(x)
    cosines = [F.cosine_similarity(part[0], part[1]).item() for part in (whole, voice, phrase)]
    assert cosines[0] == pytest.approx((cosines[1] + weight * cosines[2]) / (1 + weight), abs=1e-5)
    assert torch.allclose(
        F.normalize(whole[..., : model.voice_size], dim=-1), F.normalize(voice, dim=-1), atol=1e-6
    )


def test_a_frozen_encoder_stays_what_it_was():
    encoder = bccmt_tiny()
    model = VoicePhraseEmbedder(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model.freeze_encoder()
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    voice, phrase = model.forward_parts(torch.randn(4, 50, 80))
    (voice.sum() + phrase.square().sum()).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert not model.encoder.training and model.blocks.training


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="phrase_weight"):
        VoicePhraseEmbedder(phrase_weight=weight)
