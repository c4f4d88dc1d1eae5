"""The memory layer against plain attention over its table, with flat and product keys."""

import pytest
import torch
import torch.nn.functional as F

from speechbrain_bccmt.lobes import memory as module
from speechbrain_bccmt.lobes.memory import Memory

both_keys = pytest.mark.parametrize("product", [False, True], ids=["flat", "product"])


def all_keys(memory, head=0):
    """Return the keys of a head as a plain table (slots, key size)."""
    if not memory.product_keys:
        return memory.keys[head]
    first, second = memory.keys[:, head]
    n = memory.half_keys
    return torch.cat([first.repeat_interleave(n, 0), second.repeat(n, 1)], dim=1)


@torch.no_grad()
@both_keys
def test_one_key_gives_a_constant(product):
    memory = Memory(6, keys=1, top_k=1, key_size=4, product_keys=product)
    found = memory(5 * torch.randn(3, 7, 6))
    assert torch.allclose(found, memory.values.expand(3, 7, 6))


@torch.no_grad()
@both_keys
@pytest.mark.parametrize("heads", [1, 3])
def test_all_keys_give_dense_attention(product, heads):
    memory = Memory(6, keys=9, top_k=9, key_size=4, heads=heads, product_keys=product)
    x = 5 * torch.randn(2, 7, 6)
    queries = memory.query(x).unflatten(-1, (heads, 4))
    expected = sum(
        F.scaled_dot_product_attention(queries[:, :, h], all_keys(memory, h), memory.values)
        for h in range(heads)
    )
    assert torch.allclose(memory(x), expected, atol=1e-5)


@torch.no_grad()
@both_keys
def test_only_the_best_keys_count(product):
    memory = Memory(6, keys=16, top_k=3, key_size=4, product_keys=product)
    x = 5 * torch.randn(2, 7, 6)
    scores = memory.query(x) @ all_keys(memory).T / 4**0.5
    worst = scores.sort(dim=-1).indices[..., :-3]
    weights = scores.scatter(-1, worst, float("-inf")).softmax(-1)
    assert ((weights > 0).sum(-1) == 3).all()
    assert torch.allclose(memory(x), weights @ memory.values, atol=1e-5)
    assert not torch.allclose(memory(x), scores.softmax(-1) @ memory.values, atol=1e-2)


@both_keys
def test_large_tables_give_the_same_by_gathering(product, monkeypatch):
    memory = Memory(6, keys=16, top_k=3, key_size=4, heads=2, product_keys=product)
    x = torch.randn(2, 7, 6)
    results = []
    for limit in (16, 15):
        monkeypatch.setattr(module, "DENSE_KEYS", limit)
        memory.zero_grad()
        y = memory(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in memory.parameters())])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results, strict=True))


@both_keys
def test_gradient_reaches_every_parameter_and_selected_slots_only(product):
    memory = Memory(6, keys=16, top_k=2, key_size=4, product_keys=product)
    memory(torch.randn(1, 1, 6)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in memory.parameters())
    assert (memory.values.grad.abs().sum(1) > 0).sum() == 2


@torch.no_grad()
def test_positions_are_looked_up_one_by_one():
    memory, x = Memory(6, keys=16, top_k=2, key_size=4).eval(), torch.randn(2, 7, 6)
    assert torch.allclose(memory(x)[:, 3:4], memory(x[:, 3:4]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keys": 0}, "keys=0"),
        ({"keys": 8, "top_k": 9}, "top_k=9"),
        ({"top_k": 0}, "top_k=0"),
        ({"heads": 0}, "heads=0"),
        ({"keys": 8, "top_k": 2, "product_keys": True}, "square"),
        ({"key_size": 5, "product_keys": True}, "even"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Memory(6, **options)
