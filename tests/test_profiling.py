"""Counts and timings against figures worked out by hand."""

import time

import pytest
import torch

from speechbrain_bccmt.profiling import count_macs, count_parameters, latency_ms


class Attention(torch.nn.Module):
    """One fused attention call, whose two matrix products must be counted."""

    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


class GroupedConv(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(80, 40, 3, padding=1, groups=4)
        self.norm = torch.nn.BatchNorm1d(40)

    def forward(self, x):
        return self.norm(self.conv(x.transpose(1, 2)))


class Sleep(torch.nn.Module):
    """Sleeps a known time; once, in the middle, ten times as long."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.modes = set()

    def forward(self, x):
        self.calls += 1
        self.modes.add((self.training, torch.get_num_threads(), torch.is_inference_mode_enabled()))
        time.sleep(0.05 if self.calls == 4 else 0.005)
        return x


def test_parameters_include_frozen_and_exclude_buffers():
    model = GroupedConv()
    model.conv.bias.requires_grad_(False)
    assert count_parameters(model) == 40 * 20 * 3 + 40 + 2 * 40


@pytest.mark.parametrize("frames", [1, 100, 1000])
def test_macs_of_a_grouped_convolution(frames):
    assert count_macs(GroupedConv(), frames) == frames * 40 * 20 * 3


def test_macs_of_attention_count_both_matrix_products():
    assert count_macs(Attention(), frames=50, n_mels=16) == 2 * 50 * 50 * 16


def test_model_is_left_as_it_was():
    model = torch.nn.Sequential(GroupedConv(), torch.nn.Dropout()).train()
    model[0].norm.eval()
    mean = model[0].norm.running_mean.clone()
    count_macs(model)
    latency_ms(model, repeats=1)
    assert model.training and model[1].training and not model[0].norm.training
    torch.testing.assert_close(model[0].norm.running_mean, mean)


def test_latency_is_the_median_of_the_timed_passes_only():
    model = Sleep()
    earlier = torch.get_num_threads()
    milliseconds = latency_ms(model, frames=10, threads=2, repeats=5, warmup=2)
    assert model.calls == 7
    assert 5 <= milliseconds < 40
    assert model.modes == {(False, 2, True)}
    assert torch.get_num_threads() == earlier


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"n_mels": 0}, {"threads": 0}, {"repeats": 0}])
def test_wrong_values_are_named(wrong):
    with pytest.raises(ValueError, match="at least 1, got"):
        latency_ms(GroupedConv(), **wrong)
