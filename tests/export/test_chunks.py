"""Cutting and joining as exported graphs do it, against cutting by hand."""

import pytest
import torch

from speechbrain_bccmt.export.chunks import cut, join


@pytest.mark.parametrize(
    "positions, expected", [(1, [1]), (10, [10]), (11, [5] * 2), (20, [10] * 2), (59, [9] * 6)]
)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_the_fewest_equal_pieces(positions, expected, shape):
    x = torch.randn(2, positions, *shape)
    chunks, valid, weights = cut(x, longest=10)
    size = expected[0]
    by_hand = [row[start : start + size] for row in x for start in range(0, size * len(expected), size)]
    assert valid is None and torch.equal(chunks, torch.stack(by_hand))
    assert weights.shape == (1, len(expected)) and weights.sum().item() == pytest.approx(1)


def test_rows_of_a_padded_batch_are_cut_as_alone():
    sizes = torch.tensor([59, 7, 25, 10])
    x = torch.randn(4, 64, 3)
    chunks, valid, weights = cut(x, longest=10, valid=sizes)

    def embed(batch, sizes):
        """Return embeddings that differ if content or length differ."""
        return torch.stack(
            [row[:size].square().mean(0) + size for row, size in zip(batch, sizes, strict=True)]
        )

    together = join(embed(chunks, valid), weights)
    for number, size in enumerate(sizes):
        alone, _, ones = cut(x[number : number + 1, :size], longest=10)
        expected = join(embed(alone, [alone.shape[1]] * len(alone)), ones)
        assert torch.allclose(together[number], expected[0], atol=1e-5)


def test_behind_shorter_pieces_are_zeros():
    chunks, valid, _ = cut(torch.full((3, 40, 2), 7.0), longest=10, valid=torch.tensor([30, 7, 12]))
    for chunk, size in zip(chunks, valid, strict=True):
        assert (chunk[:size] == 7).all() and (chunk[size:] == 0).all()


def test_nothing_is_cut_into_one_piece_of_nothing():
    assert cut(torch.zeros(2, 0), longest=10)[0].shape == (2, 0)
    chunks, valid, weights = cut(torch.ones(2, 5), longest=10, valid=torch.tensor([0, 9]))
    assert valid.tolist() == [0, 5] and weights.tolist() == [[1.0], [1.0]]  # no more than there are
    assert chunks.tolist() == [[0.0] * 5, [1.0] * 5]


def test_what_does_not_count_has_no_part():
    sizes, x = torch.tensor([30, 7]), torch.randn(2, 40)
    x[1, 7:] = 1e30
    chunks, valid, weights = cut(x, longest=10, valid=sizes)
    sums = torch.stack([row[:size].sum() for row, size in zip(chunks, valid, strict=True)])[:, None]
    assert join(sums, weights)[1].item() == pytest.approx(x[1, :7].sum().item(), abs=1e-5)
