"""Folded encoders give what the trained ones give."""

import pytest
import torch

from speechbrain_bccmt import BCCMT, bccmt_base, bccmt_small, bccmt_tiny, token_bccmt_tiny
from speechbrain_bccmt.export.folding import FoldedBlock, fold_blocks


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Return every norm statistics and weights of its own: a new model's residual branches are zero."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for values in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(values, 0.3, 0.3, generator)
            torch.nn.init.uniform_(module.running_var, 0.5, 2, generator)
    return model.eval()


@pytest.mark.parametrize("build", [bccmt_tiny, bccmt_small, bccmt_base])
@pytest.mark.parametrize("frames", [1, 7, 150])
@torch.no_grad()
def test_embeddings_and_maps_are_the_same(build, frames):
    torch.manual_seed(0)
    model, x = lively(build()), torch.randn(3, frames, 80)
    lengths = torch.tensor([1.0, 0.6, 0.3])
    folded = fold_blocks(model)
    assert sum(isinstance(module, FoldedBlock) for module in folded.modules()) == sum(model.depths)
    for arguments in ((x,), (x, lengths)):
        expected, maps = model.forward_with_attention(*arguments)
        found, maps_of_folded = folded.forward_with_attention(*arguments)
        assert torch.allclose(found, expected, atol=1e-5 * expected.abs().max())
        assert torch.allclose(folded(*arguments), expected, atol=1e-5 * expected.abs().max())
        for one, other in zip(maps, maps_of_folded, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_the_model_itself_stays_as_it_was():
    model = lively(bccmt_tiny())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold_blocks(model)
    assert not any(isinstance(module, FoldedBlock) for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@torch.no_grad()
def test_attention_over_the_plane_is_left_alone():
    model, x = lively(bccmt_tiny(attention="frequency_time")), torch.randn(1, 40, 80)
    assert torch.equal(fold_blocks(model)(x), model(x))
    with pytest.raises(ValueError, match="cannot be folded"):
        FoldedBlock(model.stages[0][0], frequencies=20)


@torch.no_grad()
def test_an_encoder_without_its_head_is_folded():
    """As the front end of a TokenEmbedder it has neither pooling nor embedding layer."""
    torch.manual_seed(0)
    model, x = lively(token_bccmt_tiny()), torch.randn(2, 60, 80)
    folded = fold_blocks(model)
    assert any(isinstance(module, FoldedBlock) for module in folded.modules())
    assert torch.allclose(folded(x), model(x), atol=1e-5 * model(x).abs().max())


@torch.no_grad()
def test_other_shapes():
    sizes = dict(channels=(8, 8, 16, 16), depths=(1, 2, 0, 1), expansions=(8, 8, 8, 8), groups=2)
    model = lively(BCCMT(**sizes, n_mels=40, subbands=5, frequency_strides=(2, 2, 1, 1)))
    x = torch.randn(2, 33, 40)
    assert torch.allclose(fold_blocks(model)(x), model(x), atol=1e-5)
