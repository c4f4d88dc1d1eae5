"""A training of a TokenEmbedder goes wherever one of a BC-CMT encoder goes: every command, hub folder, ONNX."""

import json

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.export.hub import export_hub
from speechbrain_bccmt.features import frame_count
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.tiny_hub_folder import write_token_folder
from tests.voices import voice

KINDS = {
    "class": {},
    "mean": {"readout": "mean"},
    "two tokens": {"readout": "class+distillation"},
    "phonetic": {"phonetic": True},
}
OWN_NETWORK = """
import torch

class OwnNetwork(torch.nn.Linear):
    def forward(self, x, lengths=None):
        return super().forward(x)
"""

ENGINES = ("torch", "auto")


@pytest.fixture(scope="module", params=KINDS)
def training(request, tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("token") / "training", **KINDS[request.param])


@pytest.fixture(scope="module")
def hub(training):
    return export_hub(training, training.parent / "hub")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed, seconds in enumerate((1.2, 0.4)):
        soundfile.write(folder / f"{seed}.wav", voice(seconds, 3 * seed), 16000)
    return [str(folder / "0.wav"), str(folder / "1.wav")]


def load(folder):
    return SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})


def cosine(a, b):
    a, b = (torch.as_tensor(x).double() for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).min().item()


def test_the_hub_folder_is_the_same_model(training, hub, clips):
    trained, shared = load(training), load(hub)
    assert fingerprint(trained) == fingerprint(shared)
    embeddings = trained.embed(clips)
    assert torch.equal(embeddings, shared.embed(clips))
    assert cosine(embeddings[0], embeddings[1]) < 0.999  # or it would show nothing
    described = json.loads((hub / "config.json").read_text())
    assert described["embedding_size"] == embeddings.shape[1]
    assert described["architecture"] == type(trained.mods.embedding_model).__name__
    assert "(3 classes, each a speaker-phrase)" in (hub / "README.md").read_text()


def test_commands(hub, clips):
    def run(*arguments):
        return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])

    lines = {engine: run("embed", "-m", hub, "--engine", engine, *clips).stdout.splitlines() for engine in ENGINES}
    by_engine = {engine: [json.loads(line)["embedding"] for line in found] for engine, found in lines.items()}
    np.testing.assert_allclose(by_engine["torch"], load(hub).embed(clips), rtol=1e-5)
    np.testing.assert_allclose(by_engine["auto"], GraphVerifier.load(hub).embed(clips), rtol=1e-5)
    embedded = by_engine["auto"]
    assert cosine(by_engine["torch"], embedded) > 0.99999
    outcome = run("verify", "-m", hub, *clips, "--threshold", "2", "--json")
    assert outcome.exit_code == 1
    assert json.loads(outcome.stdout)["score"] == pytest.approx(cosine(*embedded), abs=1e-4)
    told = json.loads(run("info", "-m", hub, "--json", "--repeats", "1").stdout)
    assert told["encoder"].endswith("TokenEmbedder") and told["embedding_size"] == len(embedded[0])


@pytest.mark.parametrize("graph", ["features", "waveform"])
@torch.no_grad()
def test_onnx_gives_the_same_embeddings_in_a_padded_batch(training, clips, tmp_path, graph):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from speechbrain_bccmt.export.onnx import export_onnx
    from speechbrain_bccmt.sessions import load_session

    model = load_speaker_model(training)
    wavs = [torch.from_numpy(soundfile.read(clip, dtype="float32")[0]) for clip in clips]
    alone = torch.cat(
        [
            model.embedding_model(model.mean_var_norm(model.compute_features(wav[None]), torch.ones(1)))[:, 0]
            for wav in wavs
        ]
    )
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) for wav in wavs])
    if graph == "features":
        padded, lengths = model.compute_features(padded), frame_count(model.compute_features, lengths)
    for with_lengths in (True, False):
        session = load_session(export_onnx(model, tmp_path / "x.onnx", graph, with_lengths), threads=1)
        if with_lengths:
            inputs = {graph: padded.numpy(), "lengths": lengths.numpy()}
            # SpeechBrain's front end centres frames across the end: 0.9999 is ours, as in test_onnx.
            assert cosine(session.run(None, inputs)[0], alone) > 0.9999
        else:
            assert cosine(session.run(None, {graph: padded[:1].numpy()})[0], alone[:1]) > 0.99999


def test_a_phonetic_network_of_the_users_own_needs_their_trust(tmp_path, clips, monkeypatch):
    (tmp_path / "own_phonetic_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_token_folder(tmp_path / "training", phonetic=True)
    text = (folder / "hyperparams.yaml").read_text()
    start = text.index("    phonetic_model: !new")
    own = "    phonetic_model: !new:own_phonetic_network.OwnNetwork [80, 6]\n"
    (folder / "hyperparams.yaml").write_text(text[:start] + own)
    state_file = next(folder.glob("save/CKPT+*/embedding_model.ckpt"))
    state = torch.load(state_file)
    renamed = {name.replace("bottleneck.w.", ""): value for name, value in state.items()}
    torch.save(renamed, state_file)

    with pytest.raises(ValueError, match="asks for 'own_phonetic_network.OwnNetwork', .*BCCMT_TRUST_CODE=1"):
        load(folder)
    with pytest.raises(ValueError, match="asks for"):
        load_speaker_model(folder)
    monkeypatch.setenv("BCCMT_TRUST_CODE", "1")
    model = load(folder)
    assert type(model.mods.embedding_model.phonetic_model).__name__ == "OwnNetwork"
    hub = export_hub(folder, tmp_path / "hub")
    assert torch.equal(load(hub).embed(clips), model.embed(clips))
    monkeypatch.delenv("BCCMT_TRUST_CODE")
    with pytest.raises(ValueError, match="asks for"):
        load(hub)
    assert SpeakerVerification.from_hparams(folder, trust_code=True).source == str(folder)
