"""A model's fingerprint: the same for the same model, wherever it is; another for any other."""

import copy

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_bccmt import bccmt_tiny
from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.inference.fingerprint import fingerprint


def parts(front_end=None, encoder=None, **norm):
    torch.manual_seed(0)
    return {
        "compute_features": front_end or KaldiFbank(),
        "mean_var_norm": InputNormalization(**{"norm_type": "sentence", "std_norm": False} | norm),
        "embedding_model": encoder or bccmt_tiny(),
    }


@pytest.mark.parametrize(
    "front_end", [KaldiFbank, lambda: Fbank(n_mels=80), lambda: Fbank(n_mels=80, context=True)]
)
def test_use_mode_container_and_copies_do_not_count(front_end):
    model = parts(front_end(), torch.nn.Linear(80, 4))
    before = fingerprint(model)
    model["mean_var_norm"](model["compute_features"](torch.randn(2, 16000))[..., :80], torch.ones(2))
    model["embedding_model"].eval()
    assert fingerprint(model) == before
    assert fingerprint(torch.nn.ModuleDict(copy.deepcopy(model))) == before
    assert fingerprint(model | {"classifier": torch.nn.Linear(4, 9)}) == before
    interface = type("Interface", (), {"mods": torch.nn.ModuleDict(model)})()
    assert fingerprint(interface) == before
    reloaded = parts(front_end(), torch.nn.Linear(80, 4))
    reloaded["embedding_model"].load_state_dict(model["embedding_model"].state_dict())
    assert fingerprint(reloaded) == before


def nudged():
    encoder = bccmt_tiny()
    with torch.no_grad():
        list(encoder.parameters())[-1].view(-1)[-1].add_(1e-6)
    return encoder


def other_statistics():
    encoder = bccmt_tiny()
    next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)).running_mean[0] += 1
    return encoder


@pytest.mark.parametrize(
    "make",
    [
        lambda: parts(encoder=nudged()),
        lambda: parts(encoder=other_statistics()),
        lambda: parts(encoder=bccmt_tiny().to(torch.bfloat16)),
        lambda: parts(encoder=bccmt_tiny(heads=(1, 1, 1, 1))),  # the same parameters
        lambda: parts(Fbank(n_mels=80)),
        lambda: parts(KaldiFbank(window="hamming")),
        lambda: parts(KaldiFbank(f_min=30)),
        lambda: parts(KaldiFbank(f_max=7600)),
        lambda: parts(KaldiFbank(hop_length=12.5)),
        lambda: parts(KaldiFbank(scale=32768)),
        lambda: parts(std_norm=True),
        lambda: parts(norm_type="global"),
    ],
)
def test_every_difference_counts(make):
    def seeded(build):
        torch.manual_seed(0)
        return build()

    prints = [fingerprint(seeded(build)) for build in (parts, make)]
    assert prints[0] != prints[1]


def test_a_global_mean_counts():
    model = parts(norm_type="global")
    before = fingerprint(model)
    model["mean_var_norm"].glob_mean = torch.ones(80)
    assert fingerprint(model) != before


def test_numbers_are_numbers():
    assert fingerprint(parts(KaldiFbank(f_min=20))) == fingerprint(parts(KaldiFbank(f_min=20.0)))


@pytest.mark.parametrize(
    ("front_end", "expected"),
    [(KaldiFbank, "793855b811fa427c"), (lambda: Fbank(n_mels=80), "b7c06a2355ea4666")],
)
def test_fingerprints_stay_as_they_are(front_end, expected):
    """Every enrolled voiceprint depends on this: changing it invalidates all of them."""
    encoder = bccmt_tiny()
    with torch.no_grad():
        for number, value in enumerate(encoder.state_dict().values()):
            value.copy_((torch.arange(value.numel()) % 7 + number).view(value.shape))
    assert fingerprint(parts(front_end(), encoder)) == expected


@pytest.mark.parametrize(
    "model", [{}, {"embedding_model": torch.nn.Linear(1, 1)}, torch.nn.Linear(1, 1), None]
)
def test_missing_parts_are_named(model):
    with pytest.raises(ValueError, match="compute_features"):
        fingerprint(model)
