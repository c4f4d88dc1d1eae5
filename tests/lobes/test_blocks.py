"""Building blocks of BC-CMT against plain formulas."""

import pytest
import torch

from speechbrain_bccmt.lobes.attention import (
    FrequencyTimeSelfAttention,
    TemporalSelfAttention,
    conv_output_length,
    frame_mask,
    valid_frames,
)
from speechbrain_bccmt.lobes.bccmt import Block
from speechbrain_bccmt.lobes.broadcast import SubSpectralNorm
from speechbrain_bccmt.lobes.pooling import FrequencyStatisticsPooling, weighted_statistics


def randomise(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.2, 0.3)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module.eval()


def test_lengths_survive_float_rounding():
    for frames in (3, 7, 100, 999, 3001):
        wanted = torch.arange(1, frames + 1)
        assert torch.equal(valid_frames(wanted / frames, frames), wanted)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
def test_strided_counts_what_the_reduction_leaves(stride):
    for n in range(1, 20):
        attention = TemporalSelfAttention(4, heads=1, groups=1, key_reduction=stride)
        assert attention.reduce(torch.zeros(1, 4, n)).shape[-1] == conv_output_length(n, stride)


@torch.no_grad()
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_attention_equals_a_loop(reduction):
    attention = randomise(TemporalSelfAttention(8, heads=2, groups=2, key_reduction=reduction))
    x = torch.randn(1, 8, 13)
    y, weights = attention(x, with_map=True)
    assert torch.allclose(y, attention(x)[0], atol=1e-5)  # the fused kernel gives the same
    normed = attention.norm(x)
    source = attention.reduce_norm(attention.reduce(normed))
    query, key, value = attention.query(normed), attention.key(source), attention.value(source)
    out = torch.zeros(1, 8, 13)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for t in range(13):
            scores = torch.stack(
                [(query[0, part, t] * key[0, part, k]).sum() / 4**0.5 for k in range(key.shape[-1])]
            )
            row = scores.softmax(0)
            assert torch.allclose(row, weights[0, head, t], atol=1e-5)
            out[0, part, t] = (value[0, part] * row).sum(-1)
    assert torch.allclose(attention.output_norm(attention.output(out)), y, atol=1e-5)


@torch.no_grad()
def test_attention_over_the_plane_of_one_frequency_is_attention_over_time():
    time = randomise(TemporalSelfAttention(8, heads=2, groups=4, key_reduction=1))
    plane = FrequencyTimeSelfAttention(8, heads=2, groups=4, key_reduction=1).eval()
    plane.load_state_dict(
        {k: v[..., None] if v.ndim == 3 else v for k, v in time.state_dict().items()}, strict=True
    )
    x = torch.randn(2, 8, 9)
    assert torch.allclose(plane(x[:, :, None])[0][:, :, 0], time(x)[0], atol=1e-5)


@torch.no_grad()
def test_subspectral_norm_is_one_norm_for_each_band():
    norm = SubSpectralNorm(3, subbands=2).train()
    x = torch.randn(4, 3, 6, 5) * torch.tensor([1, 1, 1, 9, 9, 9.0])[:, None] + 2
    y = norm(x)
    for band in (slice(0, 3), slice(3, 6)):
        for channel in range(3):
            values = y[:, channel, band]
            assert abs(values.mean()) < 1e-5 and abs(values.std(correction=0) - 1) < 1e-3


@torch.no_grad()
def test_block_is_its_three_residual_steps():
    """The block merges two broadcasts into one addition; here they are taken one by one."""
    block = randomise(Block(8, hidden=16, heads=2, groups=2, key_reduction=2, subbands=5))
    x = torch.randn(2, 8, 10, 12)
    f2 = block.local_frequency(x)
    y = x + f2 + block.local_time(f2.mean(2))[:, :, None]
    y = y + block.attention(y.mean(2))[0][:, :, None]
    f2 = block.feed_frequency(y)
    y = (y + f2 + block.feed_time(f2.mean(2))[:, :, None]).relu()
    assert torch.allclose(block(x)[0], y, atol=1e-4)


def test_a_new_block_starts_as_identity():
    block = Block(8, hidden=16, heads=2, groups=2, key_reduction=2, subbands=5)
    x = torch.rand(2, 8, 10, 12)
    assert torch.equal(block(x)[0], x)


@torch.no_grad()
def test_pooling_with_even_weights_is_plain_statistics():
    pooling = FrequencyStatisticsPooling(4, frequencies=5)
    torch.nn.init.zeros_(pooling.score.weight)
    x = torch.randn(2, 4, 5, 30)
    h = torch.cat([x.mean(2), x.std(2, correction=0)], 1)
    wanted = torch.cat([h.mean(2), h.std(2, correction=0)], 1)
    assert torch.allclose(pooling(x), wanted, atol=1e-3)


@torch.no_grad()
def test_pooling_ignores_padding_and_listens_where_it_is_told():
    pooling = randomise(FrequencyStatisticsPooling(4, frequencies=5))
    x = torch.randn(1, 4, 5, 30)
    padded = torch.nn.functional.pad(x, (0, 12), value=7.0)
    assert torch.allclose(pooling(padded, torch.tensor([30])), pooling(x), atol=1e-5)
    assert not torch.allclose(pooling(padded), pooling(x), atol=1e-2)
    pooling.frequency_score[:] = -1e4
    pooling.frequency_score[:, 3] = 0
    pooling.frequency_scale[:] = 0
    means = weighted_statistics(x[:, :, 3], pooling_weights(pooling, x), dim=2)[0]
    assert torch.allclose(pooling(x)[:, :4], means, atol=1e-3)


def pooling_weights(pooling, x):
    h = torch.cat([x[:, :, 3], torch.full_like(x[:, :, 3], 1e-5**0.5)], 1)
    return pooling.score(torch.tanh(pooling.hidden(h))).softmax(2)[:, :4]


def test_frame_mask():
    assert frame_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]
