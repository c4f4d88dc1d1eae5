"""Every form of the token embedder under the contract of an encoder."""

import json

import pytest
import torch
import torch.nn.functional as F

from speechbrain_bccmt import TokenEmbedder, VoicePhraseEmbedder, bccmt_tiny
from speechbrain_bccmt.lobes.token_embedder import token_bccmt_tiny
from speechbrain_bccmt.profiling import count_parameters

FORMS = {
    "mean": {"readout": "mean"},
    "class": {},
    "sampled": {"class_tokens": 4, "positions": "sinusoidal", "memory_keys": 64},
    "distillation": {
        "readout": "class+distillation",
        "embedding": "concatenation",
        "memory_keys": 64,
        "memory_heads": 2,
    },
    "product": {"readout": "class+distillation", "embedding": "mean", "memory_keys": 64, "product_keys": True},
    "phonetic": {"positions": "phonetic", "phonetic_size": 6, "time_stride": 3},
    "feed-forward": {"feed_forward": 64, "dropout": 0.1},
    "bccmt": {"front_end": {}, "readout": "class+distillation", "positions": "sinusoidal"},
    "bccmt phonetic": {"front_end": {}, "positions": "phonetic", "phonetic_size": 6},
    "voice and phrase": {"phrase_weight": 0.5},
}


def build(form):
    options = FORMS[form]
    if "phrase_weight" in options:
        return VoicePhraseEmbedder(**options)
    return token_bccmt_tiny(**options) if "front_end" in options else TokenEmbedder(**options)


def utterances(batch, frames):
    """Noise with a spectrum and a rhythm of its own in each utterance, on the scale of log-mel in dB."""
    gain = 10 * torch.rand(batch, 1, 80) + torch.randn(batch, 1, 80).cumsum(-1)
    rhythm = torch.sin(torch.arange(frames)[None, :, None] * torch.rand(batch, 1, 1))
    return gain * (torch.randn(batch, frames, 80) + 2 * rhythm)


def inputs(model, batch, frames):
    """Return features, and a phonetic input if the model takes one, as a dict."""
    found = {"x": utterances(batch, frames)}
    if model.sequence.phonetic_size:
        found["phonetic"] = torch.randn(batch, frames, model.sequence.phonetic_size)
    return found


@torch.no_grad()
def lively(model):
    """Make a new model behave like a trained one: running statistics, and embeddings that depend on the input."""
    torch.manual_seed(1)
    for parameter in model.sequence.front_end.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, 0.3, 0.2)
    for block in model.blocks:
        block.attention.query.weight.mul_(5)  # a new model attends to all frames equally
        block.attention.output.weight.mul_(3)
    for layer in model.embedding_layers:
        torch.nn.init.zeros_(layer.bias)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # plain averages: the statistics are those of the batches below
    for _ in range(2):
        model.train()(**inputs(model, 8, 60))
    return model.eval()


@pytest.fixture(scope="module", params=FORMS)
def model(request):
    return lively(build(request.param))


def cosine(a, b):
    return F.cosine_similarity(a.double(), b.double(), dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("frames", [(137, 136, 61, 8, 1), (64, 63, 33, 31, 2)])
def test_padding_changes_nothing(model, frames):
    singles = [inputs(model, 1, n) for n in frames]
    batch = {
        key: torch.full((len(frames), max(frames), value.shape[-1]), 1e3) for key, value in singles[0].items()
    }
    for index, single in enumerate(singles):
        for key, value in single.items():
            batch[key][index, : value.shape[1]] = value[0]
    together = model(**batch, lengths=torch.tensor(frames) / max(frames))
    assert together.shape == (len(frames), 1, model.embedding_size)
    for embedding, single in zip(together, singles, strict=True):
        alone = model(**single)
        assert cosine(embedding, alone[0]).item() > 0.99999
        assert torch.allclose(embedding, alone[0], rtol=1e-3, atol=1e-3 * alone.abs().max().item())


@torch.no_grad()
def test_padding_would_matter_without_lengths(model):
    alone = inputs(model, 1, 60)
    padded = {key: F.pad(value, (0, 0, 0, 60)) for key, value in alone.items()}
    assert cosine(model(**padded), model(**alone)).item() < 0.999


@torch.no_grad()
def test_maps(model):
    x, lengths = inputs(model, 2, 90), torch.tensor([90, 41]) / 90
    embedding, maps = model.forward_with_attention(**x, lengths=lengths)
    assert torch.allclose(embedding, model(**x, lengths=lengths), atol=1e-4 * embedding.abs().max().item())
    assert len(maps) == sum(model.depths)
    alone = model.forward_with_attention(**{key: value[1:, :41] for key, value in x.items()})[1]
    for padded, single in zip(maps, alone, strict=True):
        assert torch.allclose(padded.sum(-1), torch.ones(padded.shape[:-1]), atol=1e-4)
        queries, keys = single.shape[2:]
        assert torch.allclose(padded[1:, :, :queries, :keys], single, atol=1e-4)
        assert padded[1:, :, :, keys:].sum() == 0
    sequence = -(-90 // model.time_stride)
    if model.tokens is None:
        with pytest.raises(ValueError, match="no class token"):
            model.token_attention(maps)
        return
    seen = model.token_attention(maps)
    assert seen.shape == (2, maps[-1].shape[1], sequence)
    rest = maps[-1][:, :, 0, : model.tokens.count].sum(-1)
    assert torch.allclose(seen.sum(-1) + rest, torch.ones(seen.shape[:2]), atol=1e-4)
    if model.tokens.count == 2:
        assert torch.equal(model.token_attention(maps, "distillation", -1), maps[-1][:, :, 1, 2:])
    assert (seen[0] > 0).all() and seen[1, :, -(-41 // model.time_stride) :].sum() == 0


@torch.no_grad()
def test_the_class_token_looks_where_the_embedding_comes_from():
    """If the token attends almost only to one frame, the embedding depends almost only on that frame."""
    options = {"blocks": 1, "heads": 1, "kernel_size": 1, "time_stride": 1, "memory_keys": 0}
    model = lively(TokenEmbedder(**options))
    model.blocks[0].attention.query.weight.mul_(16)
    x = utterances(1, 20)
    embedding, maps = model.forward_with_attention(x)
    seen = model.token_attention(maps)[0, 0]
    assert seen.max() > 0.9
    frame = seen.argmax().item()
    others = [index for index in range(20) if index != frame]
    assert cosine(model(x[:, [frame]]), embedding).item() > 0.99
    assert cosine(model(x[:, others]), embedding).item() < 0.95


@torch.no_grad()
@pytest.mark.parametrize("readout", ["class", "mean"])
@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
def test_order_of_frames_counts_with_positions_only(readout, positions):
    model = lively(TokenEmbedder(readout, positions=positions, kernel_size=1, time_stride=1))
    x = utterances(1, 50)
    shuffled = cosine(model(x[:, torch.randperm(50)]), model(x)).item()
    assert (shuffled > 0.999999) if positions == "none" else (shuffled < 0.99)


@torch.no_grad()
def test_phonetic_input_counts(model):
    x = inputs(model, 1, 40)
    if "phonetic" not in x:
        with pytest.raises(ValueError, match="phonetic"):
            model(**x, phonetic=torch.randn(1, 40, 6))
        return
    assert cosine(model(x["x"], phonetic=x["phonetic"].flip(1)), model(**x)).item() < 0.9999
    for wrong in (None, x["phonetic"][:, 1:], x["phonetic"][..., 1:]):
        with pytest.raises(ValueError, match="phonetic"):
            model(x["x"], phonetic=wrong)


@torch.no_grad()
def test_one_vector_equals_the_plain_class_token():
    """R equal vectors, whatever is drawn, and R = 1 give the same; R different ones do not."""
    one = lively(TokenEmbedder())
    many = TokenEmbedder(class_tokens=3)
    state = one.state_dict()
    many.load_state_dict(state | {"tokens.class_vectors": state["tokens.class_vectors"].repeat(3, 1)})
    x = utterances(4, 50)
    assert torch.allclose(many.eval()(x), one(x), atol=1e-5)
    assert torch.allclose(many.train()(x), one.train()(x), atol=1e-4)
    torch.nn.init.normal_(many.tokens.class_vectors)
    assert not torch.allclose(many.eval()(x), one.eval()(x), atol=1e-2)


@torch.no_grad()
def test_embedding_is_chosen_among_the_tokens():
    x = utterances(2, 50)
    model = lively(TokenEmbedder("class+distillation"))
    found = {}
    for embedding in ("class", "distillation", "mean", "concatenation"):
        again = TokenEmbedder("class+distillation", embedding=embedding).eval()
        again.load_state_dict(model.state_dict())
        found[embedding] = again(x)
        assert found[embedding].shape[-1] == again.embedding_size
    first, second, maps = model.forward_tokens(x)
    assert maps == [None, None] and not torch.allclose(first, second, atol=1e-2)
    assert torch.allclose(found["class"], first) and torch.allclose(found["distillation"], second)
    assert torch.allclose(found["mean"], (first + second) / 2)
    assert torch.allclose(found["concatenation"], torch.cat([first, second], -1))
    with pytest.raises(ValueError, match="distillation"):
        lively(TokenEmbedder("class")).forward_tokens(x)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_reaches_every_parameter(form):
    torch.manual_seed(0)
    model = lively(build(form)).train()
    x, lengths = inputs(model, 12, 60), torch.linspace(1, 0.5, 12)
    if "distillation" in model.readout:
        first, second, _ = model.forward_tokens(**x, lengths=lengths)
        (first.square().mean() + second.square().mean()).backward()
    else:
        model(**x, lengths=lengths).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # A constant added to all scores of a softmax has no effect by construction.
    still = [n for n, p in model.named_parameters() if not n.endswith("key.bias") and p.grad.abs().max() == 0]
    assert (without, still) == ([], [])
    if model.tokens is not None:
        assert (model.tokens.class_vectors.grad.abs().sum(1) > 0).all()


@torch.no_grad()
def test_it_is_built_again_from_its_plain_options(model):
    again = type(model)(**json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    x = inputs(model, 2, 30)
    assert torch.equal(again.eval()(**x), model(**x))


@torch.no_grad()
def test_a_trained_encoder_becomes_the_front_end():
    encoder = bccmt_tiny()
    stem = encoder.stem[0].weight.clone()
    model = TokenEmbedder(front_end=encoder)
    assert torch.equal(model.sequence.front_end.stem[0].weight, stem)
    assert not any("pooling" in name or "front_end.embedding" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="pooling"):
        encoder(torch.randn(1, 20, 80))


@torch.no_grad()
def test_half_precision_is_finite(model):
    x = inputs(model, 2, 50)
    x["x"][1] = 0  # silence
    for kind in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=kind):
            assert model(**x, lengths=torch.tensor([1.0, 0.5])).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 0, 80), (1, 30, 40), (30, 80), (1, 1, 30, 80)])
def test_wrong_input_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match=str(shape[-1])):
        TokenEmbedder().eval()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readout": "token"}, r"class\+distillation"),
        ({"positions": "learned"}, "sinusoidal"),
        ({"embedding": "sum"}, "concatenation"),
        ({"embedding": "mean"}, "needs readout"),
        ({"readout": "mean", "class_tokens": 2}, "class_tokens=2"),
        ({"positions": "phonetic"}, "phonetic_size=0"),
        ({"phonetic_size": 5}, "phonetic_size=5"),
        ({"channels": 97, "heads": 1}, "channels=97"),
        ({"blocks": 0}, "blocks=0"),
        ({"heads": 5}, "heads=5"),
        ({"memory_keys": 64, "memory_top_k": 65}, "top_k=65"),
        ({"kernel_size": 4}, "kernel_size=4"),
        ({"front_units": 0}, "units=0"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TokenEmbedder(**options)


def test_sizes():
    assert 0.2e6 < count_parameters(TokenEmbedder()) < 0.25e6
    assert 0.25e6 < count_parameters(TokenEmbedder(memory_keys=64)) < 0.35e6
    assert 0.25e6 < count_parameters(token_bccmt_tiny()) < 0.35e6
    mean, token = (count_parameters(TokenEmbedder(readout)) for readout in ("mean", "class"))
    assert token - mean == 96  # the control differs by the token alone


@torch.no_grad()
@pytest.mark.parametrize("form", ["mean", "sampled", "product", "bccmt phonetic"])
def test_exports_to_onnx_with_any_batch_and_length(form, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    model = lively(build(form))
    path = tmp_path / "tokens.onnx"
    example = {**inputs(model, 2, 70), "lengths": torch.tensor([1.0, 0.6])}
    axes = {key: {0: "batch", 1: "frames"} for key in example} | {"lengths": {0: "batch"}}
    order = [key for key in ("x", "lengths", "phonetic") if key in example]
    torch.onnx.export(
        model,
        tuple(example[key] for key in order),
        path,
        input_names=order,
        dynamic_axes=axes,
        dynamo=False,
        opset_version=17,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, frames in ((1, 30), (3, 333)):
        given = {**inputs(model, batch, frames), "lengths": torch.linspace(1, 0.3, batch)}
        theirs = session.run(None, {key: value.numpy() for key, value in given.items()})[0]
        assert cosine(model(**given), torch.from_numpy(theirs)).min() > 0.9999
