"""What a recipe builds from its YAML: draws by corpus, and what is kept of a model to start from."""

from types import SimpleNamespace

import pytest
import torch

from speechbrain_bccmt.training.recipe import build_sampler
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain


def crops(rows):
    data = {str(i): {"wav": wav, "duration": str(seconds)} for i, (wav, seconds) in enumerate(rows)}
    return SimpleNamespace(data=data, n_samples=32000, sample_rate=16000)


def test_draws_follow_the_weight_of_the_corpus_and_the_length(tmp_path):
    folders = [str(tmp_path / name) for name in ("read", "words", "nameless")]
    rows = [(f"{folders[0]}/wav/a.wav", 1.0), (f"{folders[0]}/wav/b.wav", 9.0)]  # 9 s count as a crop: 2 s
    rows += [(f"{folders[1]}/wav/{i}.wav", 1.0) for i in range(10)] + [(f"{folders[2]}/wav/c.wav", 1.0)]
    hparams = {"data_folder": folders[:2], "unlabelled_folder": folders[2], "seed": 1}
    sampler = build_sampler(hparams | {"corpus_weights": [6, 3, 1]}, crops(rows))
    shares = sampler.weights / sampler.weights.sum()
    assert shares[:2].tolist() == pytest.approx([0.2, 0.4])
    assert shares[2:12].tolist() == pytest.approx([0.03] * 10) and shares[12] == pytest.approx(0.1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again != list(sampler) and len(first) == len(rows)
    assert build_sampler(hparams | {"corpus_weights": None}, crops(rows)) is None
    with pytest.raises(ValueError, match="there are 3 folders: give one for each"):
        build_sampler(hparams | {"corpus_weights": [1, 2]}, crops(rows))


def test_utterances_without_a_speaker_are_left_out_of_the_speaker_loss():
    def cost(cosines, labels):
        return torch.nn.functional.cross_entropy(cosines.squeeze(1), labels.squeeze(1))

    brain = SimpleNamespace(hparams=SimpleNamespace(compute_cost=cost))
    cosines = torch.randn(3, 1, 4, requires_grad=True)

    def loss(labels):
        batch = SimpleNamespace(spk_id_encoded=SimpleNamespace(data=torch.tensor(labels)[:, None]))
        return SpeakerBrain.speaker_loss(brain, cosines, batch)

    assert loss([2, -1, 0]).item() == pytest.approx(cost(cosines[[0, 2]], torch.tensor([[2], [0]])).item())
    nothing = loss([-1, -1, -1])
    nothing.backward()
    assert nothing.item() == 0 and cosines.grad.abs().sum() == 0
