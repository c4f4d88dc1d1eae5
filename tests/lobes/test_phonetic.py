"""The token embedder that computes its own phonetic input."""

import pytest
import torch
import torch.nn.functional as F
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain.nnet.linear import Linear
from speechbrain.processing.features import ContextWindow

from speechbrain_bccmt import TokenEmbedder
from tests.lobes.test_token_embedder import lively, utterances

OPTIONS = {"positions": "phonetic", "phonetic_size": 6, "kernel_size": 1, "time_stride": 1}


def phonetic_network():
    """Return a network with a context window and a bottleneck, whose output differs in training mode."""
    torch.manual_seed(3)
    return LengthsCapableSequential(
        context=ContextWindow(3, 3),
        hidden=Linear(input_size=7 * 80, n_neurons=12),
        norm=torch.nn.LayerNorm(12),
        drop=torch.nn.Dropout(0.5),
        bottleneck=Linear(input_size=12, n_neurons=6),
    )


def build(network):
    model = TokenEmbedder(**OPTIONS, phonetic_model=network)
    model.load_state_dict(lively(TokenEmbedder(**OPTIONS)).state_dict(), strict=False)
    return model.eval()


@pytest.fixture
def model():
    return build(phonetic_network())


def cosine(a, b):
    return F.cosine_similarity(a.double(), b.double(), dim=-1).min().item()


@torch.no_grad()
def test_it_is_the_embedder_with_what_the_network_hears(model):
    x = utterances(3, 40)
    heard = model.phonetic_model(x)
    embedder = TokenEmbedder(**OPTIONS).eval()
    embedder.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model(x), embedder(x, None, heard)) and torch.equal(model(x), model(x, None, heard))
    assert cosine(model(x), embedder(x, None, torch.zeros_like(heard))) < 0.999
    embedding, maps = model.forward_with_attention(x)
    expected, expected_maps = embedder.forward_with_attention(x, None, heard)
    assert torch.equal(embedding, expected)
    assert all(torch.equal(one, other) for one, other in zip(maps, expected_maps, strict=True))
    assert torch.equal(model.token_attention(maps, block=0), embedder.token_attention(maps, block=0))


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 17])
def test_padding_changes_nothing(model, frames):
    x = utterances(2, 40)
    x[1, frames:] = 1000.0
    together = model(x, torch.tensor([1.0, frames / 40]))
    assert cosine(together[1], model(x[1:, :frames])[0]) > 0.99999
    assert cosine(together[0], model(x[:1])[0]) > 0.99999
    # Frames next to the padding would see it through the window if it were not zeroed.
    assert cosine(model.phonetic_model(x)[1, :frames], model.phonetic_model(x[1:, :frames])[0]) < 0.99


@torch.no_grad()
def test_order_of_frames_counts_with_a_network_that_hears_it(model):
    """The front end is pointwise and nothing else tells the frames apart."""
    x = utterances(2, 40)
    shuffled = x[:, torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    assert cosine(model(x), model(shuffled)) < 0.9999
    frame_by_frame = build(LengthsCapableSequential(bottleneck=Linear(input_size=80, n_neurons=6)))
    assert cosine(frame_by_frame(x), frame_by_frame(shuffled)) > 0.99999


def test_the_network_learns_nothing_and_stays_as_it_was():
    model = TokenEmbedder(**OPTIONS, phonetic_model=phonetic_network()).train()
    assert model.training and not model.phonetic_model.drop.training
    before = {name: value.clone() for name, value in model.phonetic_model.state_dict().items()}
    x = utterances(3, 20).requires_grad_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    assert torch.equal(model.phonetic(x), model.phonetic(x)) and not model.phonetic(x).requires_grad
    model(x).square().sum().backward()
    optimizer.step()
    assert all(p.grad is None and not p.requires_grad for p in model.phonetic_model.parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("phonetic_model")]
    assert others and all(parameter.grad is not None for parameter in others)
    after = model.phonetic_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_checkpoint_holds_both_parts(model):
    x = utterances(2, 30)
    other = TokenEmbedder(**OPTIONS, phonetic_model=phonetic_network().apply(reset)).eval()
    with torch.no_grad():
        assert cosine(other(x), model(x)) < 0.99
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))


def reset(module):
    for parameter in module.parameters(recurse=False):
        torch.nn.init.normal_(parameter)


def test_two_tokens():
    options = {"readout": "class+distillation", "embedding": "concatenation", **OPTIONS}
    model = TokenEmbedder(**options, phonetic_model=phonetic_network()).eval()
    first, second, maps = model.forward_tokens(utterances(2, 10), with_map=True)
    assert first.shape == second.shape == (2, 1, model.token_size) and maps[0] is not None
    assert model(utterances(2, 10)).shape[-1] == model.embedding_size == 2 * model.token_size
    assert model.config == TokenEmbedder(**options).config


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.nn.LSTM(80, 6), r"LSTM gives tuple"),
        (
            LengthsCapableSequential(only=Linear(input_size=80, n_neurons=5)),
            r"gives \(2, 9, 5\) .*6 = phonetic",
        ),
    ],
)
def test_a_network_of_another_shape_is_told(network, message):
    network.forward = (
        network.forward if not isinstance(network, torch.nn.LSTM) else lambda x, lengths: (x, lengths)
    )
    model = TokenEmbedder(**OPTIONS, phonetic_model=network)
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 9, 80))


def test_an_embedder_without_phonetic_input_is_refused():
    with pytest.raises(ValueError, match="positions='none'"):
        TokenEmbedder(phonetic_model=phonetic_network())
