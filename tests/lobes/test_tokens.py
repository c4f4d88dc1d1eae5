"""Tokens before the frames, and the block that lets them attend."""

import pytest
import torch
from torch import nn

from speechbrain_bccmt.lobes.front_end import sinusoidal_positions
from speechbrain_bccmt.lobes.memory import Memory
from speechbrain_bccmt.lobes.tokens import TokenBlock, Tokens, TokenSelfAttention


def test_one_vector_is_the_plain_class_token():
    tokens, frames = Tokens(8), torch.randn(3, 5, 8)
    plain = torch.cat([tokens.class_vectors.expand(3, 1, 8), frames], dim=1)
    state = torch.get_rng_state()
    assert torch.equal(tokens.train()(frames), plain)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    assert torch.equal(tokens.eval()(frames), plain)


def test_training_draws_one_of_the_vectors_for_each_utterance():
    torch.manual_seed(0)
    tokens = Tokens(8, class_tokens=3, distillation=True)
    drawn = tokens.train()(torch.randn(600, 5, 8))[:, 0]
    same = (drawn[:, None] == tokens.class_vectors).all(-1)
    assert (same.sum(1) == 1).all()
    assert (same.sum(0) > 150).all()  # 200 expected
    drawn.sum().backward()
    assert (tokens.class_vectors.grad.abs().sum(1) > 0).all()


@torch.no_grad()
def test_inference_takes_the_first():
    tokens, frames = Tokens(8, class_tokens=3).eval(), torch.randn(2, 5, 8)
    assert torch.equal(tokens(frames)[:, 0], tokens.class_vectors[0].expand(2, 8))
    assert torch.equal(tokens(frames), tokens(frames))


@torch.no_grad()
def test_order_is_class_distillation_frames():
    tokens, frames = Tokens(8, distillation=True).eval(), torch.randn(2, 5, 8)
    x = tokens(frames)
    assert tokens.count == 2 and Tokens(8).count == 1
    assert torch.equal(x[0, 0], tokens.class_vectors[0])
    assert torch.equal(x[1, 1], tokens.distillation_vector[0])
    assert torch.equal(x[:, 2:], frames)


def test_there_is_at_least_one_vector():
    with pytest.raises(ValueError, match="class_tokens=0"):
        Tokens(8, class_tokens=0)


@torch.no_grad()
def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = TokenSelfAttention(8, heads=2), nn.MultiheadAttention(8, 2, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([part.weight.squeeze(-1) for part in parts]))
    theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.weight.copy_(ours.output.weight.squeeze(-1))
    theirs.out_proj.bias.zero_()
    x, keep = 3 * torch.randn(2, 6, 8), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    y = nn.functional.layer_norm(x, (8,))
    expected, weights = theirs(y, y, y, key_padding_mask=~keep, average_attn_weights=False)
    attended, shown = ours(x, keep, with_map=True)
    assert torch.allclose(attended, expected, atol=1e-5) and torch.allclose(shown, weights, atol=1e-5)
    attended, shown = ours(x, keep)
    assert torch.allclose(attended, expected, atol=1e-5) and shown is None


@torch.no_grad()
def test_block_concatenates_memory_with_attention():
    block = TokenBlock(8, heads=2, memory=Memory(8, keys=4, top_k=2)).eval()
    x = torch.randn(2, 6, 8)
    attended = x + block.attention(x)[0]
    y = nn.functional.layer_norm(attended, (8,))
    weight = block.join.weight
    expected = attended + y @ weight[:, :8].T + block.memory(y) @ weight[:, 8:].T + block.join.bias
    assert torch.allclose(block(x)[0], expected, atol=1e-5)


def test_dropout_acts_in_training_only():
    block, x = TokenBlock(8, heads=2, feed_forward=16, dropout=0.5), torch.randn(2, 6, 8)
    assert not torch.equal(block(x)[0], block(x)[0])
    block.eval()
    assert torch.equal(block(x)[0], block(x)[0])


def test_positions_are_sines_and_cosines():
    positions = sinusoidal_positions(5000, 6, torch.empty(0))
    rates = 10000.0 ** -(torch.arange(3) / 3)
    angles = torch.arange(5000)[:, None] * rates
    assert torch.allclose(positions, torch.cat([angles.sin(), angles.cos()], 1), atol=2e-3)
    assert torch.cdist(positions[:200], positions[:200]).fill_diagonal_(9).min() > 0.1  # all tell apart


def test_projections_start_with_the_gain_of_multi_head_attention():
    block = TokenBlock(96, heads=4, memory=Memory(96, keys=64))
    expected = torch.nn.init.xavier_uniform_(torch.empty(96, 96)).std().item()
    for name in ("query", "key", "value", "output"):
        layer = getattr(block.attention, name)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.bias is None or not layer.bias.any()
    assert not block.join.bias.any() and block.memory.query.bias.any()
