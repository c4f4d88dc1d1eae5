"""Every size and form of BC-CMT under the contract of an encoder."""

import pytest
import torch
import torch.nn.functional as F

from speechbrain_bccmt import BCCMT, bccmt_base, bccmt_small, bccmt_tiny
from speechbrain_bccmt.profiling import count_macs, count_parameters

FORMS = ("temporal", "frequency_time")
VARIANTS = [(build, form) for build in (bccmt_tiny, bccmt_small, bccmt_base) for form in FORMS]
names = [f"{build.__name__}-{form}" for build, form in VARIANTS]
every_variant = pytest.mark.parametrize("build, form", VARIANTS, ids=names)


def lively(model: BCCMT) -> BCCMT:
    """Make a new model behave like a trained one: non-zero branches, and running statistics of its input."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or not parameter.any():
            torch.nn.init.normal_(parameter, 0.5 if name.endswith("norm.weight") else 0.1, 0.2)
    torch.nn.init.zeros_(model.embedding.bias)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # plain averages: the statistics are those of the few batches below
    with torch.no_grad():
        for _ in range(3):
            model.train()(utterances(16, 60))
    return model.eval()


def utterances(batch: int, frames: int):
    """Noise with a spectrum and a modulation of its own in each utterance, on the scale of log-mel in dB."""
    gain = 10 * torch.rand(batch, 1, 80) + torch.randn(batch, 1, 80).cumsum(-1)
    rhythm = torch.sin(torch.arange(frames)[None, :, None] * torch.rand(batch, 1, 1))
    return gain * (torch.randn(batch, frames, 80) + 2 * rhythm)


@pytest.fixture(scope="module", params=VARIANTS, ids=names)
def model(request):
    build, form = request.param
    return lively(build(form))


def cosine(a, b):
    return F.cosine_similarity(a.double(), b.double(), dim=-1)


@torch.no_grad()
def test_shape(model):
    assert model(torch.randn(3, 57, 80)).shape == (3, 1, model.embedding_size)
    assert model(torch.randn(3, 57, 80), torch.tensor([1.0, 0.7, 0.1])).shape == (3, 1, 192)


@torch.no_grad()
@pytest.mark.parametrize("frames", [(137, 136, 61, 8, 1), (64, 63, 33, 32, 31), (500, 9, 4, 3, 2)])
def test_padding_changes_nothing(model, frames):
    singles = [utterances(1, n)[0] for n in frames]
    batch = torch.full((len(frames), max(frames), 80), 1e3)  # padding may hold anything
    for row, utterance in zip(batch, singles, strict=True):
        row[: len(utterance)] = utterance
    together = model(batch, torch.tensor(frames) / max(frames))
    for embedding, utterance in zip(together, singles, strict=True):
        alone = model(utterance[None])
        assert cosine(embedding, alone[0]).item() > 0.99999
        assert torch.allclose(embedding, alone[0], rtol=1e-3, atol=1e-3 * alone.abs().max().item())


@torch.no_grad()
def test_padding_would_matter_without_lengths(model):
    utterance = utterances(1, 60)
    padded = F.pad(utterance, (0, 0, 0, 60))
    assert cosine(model(padded), model(utterance)).item() < 0.99


@torch.no_grad()
def test_maps(model):
    frames = torch.tensor([90, 41])
    x = utterances(2, 90)
    embedding, maps = model.forward_with_attention(x, frames / 90)
    assert torch.allclose(embedding, model(x, frames / 90), atol=1e-4 * embedding.abs().max().item())
    assert len(maps) == sum(model.depths)
    alone = model.forward_with_attention(x[1:, :41])[1]
    for padded, map_alone in zip(maps, alone, strict=True):
        assert torch.allclose(padded.sum(-1), torch.ones(padded.shape[:-1]), atol=1e-4)
        if model.attention == "temporal":
            queries, keys = map_alone.shape[2:]
            assert torch.allclose(padded[1:, :, :queries, :keys], map_alone, atol=1e-4)
            assert padded[1:, :, :, keys:].sum() == 0
        assert padded.std() > 0


def test_maps_match_between_sizes():
    x = torch.randn(1, 80, 80)
    maps = [build().eval().forward_with_attention(x)[1] for build in (bccmt_tiny, bccmt_small, bccmt_base)]
    stages = []
    for size, model_maps in zip((bccmt_tiny(), bccmt_small(), bccmt_base()), maps, strict=True):
        ends = torch.tensor(size.depths).cumsum(0) - 1
        stages.append([tuple(model_maps[end].shape) for end in ends])
    assert stages[0] == stages[1] == stages[2]


@every_variant
def test_gradient_reaches_every_parameter(build, form):
    model = lively(build(form)).train()
    model(utterances(3, 40), torch.tensor([1.0, 0.8, 0.5])).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # A constant before the softmax over time, and biases before a norm, have no effect by construction.
    idle = ("pooling.score.bias", "attention.key.bias")
    still = [n for n, p in model.named_parameters() if not n.endswith(idle) and p.grad.abs().max() == 0]
    assert (without, still) == ([], [])


@every_variant
def test_new_blocks_learn_though_they_start_as_identity(build, form):
    torch.manual_seed(0)
    model = build(form).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(4):
        optimiser.zero_grad()
        model(utterances(3, 40)).square().mean().backward()
        optimiser.step()
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    assert min(moved[name] for name in moved if name.endswith("project_norm.weight")) > 0


@torch.no_grad()
def test_state_dict_round_trip(model):
    x = torch.randn(2, 30, 80)
    again = BCCMT(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), model(x))


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(model, kind):
    x = utterances(2, 50)
    x[1] = 0  # silence
    with torch.autocast("cpu", dtype=kind):
        assert model(x, torch.tensor([1.0, 0.5])).isfinite().all()
        assert model.forward_with_attention(x)[0].isfinite().all()


@torch.no_grad()
def test_one_frame_and_silence(model):
    assert model(torch.randn(1, 1, 80)).isfinite().all()
    assert model(torch.zeros(1, 20, 80)).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 0, 80), (1, 30, 40), (30, 80), (1, 1, 30, 80)])
def test_wrong_input_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match=str(shape[-1])):
        bccmt_tiny().eval()(torch.zeros(shape))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"attention": "time"}, "frequency_time"),
        ({"n_mels": 64}, "subbands=5"),
        ({"groups": 3}, "groups=3"),
        ({"heads": (3, 2, 4, 4)}, "heads=3"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        bccmt_tiny(**options)


def test_published_figures():
    """271.44 K parameters and 36.8 % fewer operations at 1 s are the papers'; the rest is our reading."""
    tiny, plane = bccmt_tiny(), bccmt_tiny("frequency_time")
    assert round(count_parameters(tiny), -1) == 271440
    assert abs(count_parameters(plane) / count_parameters(tiny) - 1) < 0.1
    assert count_macs(tiny, frames=100) <= (1 - 0.368) * count_macs(plane, frames=100)
    assert 0.8e6 < count_parameters(bccmt_small()) < 1.2e6
    assert 3e6 < count_parameters(bccmt_base()) < 5e6


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_exports_to_onnx_with_any_batch_and_length(form, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    model = lively(bccmt_tiny(form))
    path = tmp_path / "tiny.onnx"
    axes = {"features": {0: "batch", 1: "frames"}, "lengths": {0: "batch"}}
    example = (torch.randn(2, 70, 80), torch.tensor([1.0, 0.6]))
    torch.onnx.export(
        model, example, path, input_names=list(axes), dynamic_axes=axes, dynamo=False, opset_version=17
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, frames in ((1, 30), (3, 333)):
        x, lengths = utterances(batch, frames), torch.linspace(1, 0.3, batch)
        ours = model(x, lengths)
        theirs = torch.from_numpy(session.run(None, {"features": x.numpy(), "lengths": lengths.numpy()})[0])
        assert cosine(ours, theirs).min() > 0.9999
