"""The factorised transform against torch's."""

import pytest
import torch

from speechbrain_bccmt.export.fbank import FrameSpectrum, exportable_front_end
from speechbrain_bccmt.features import KaldiFbank
from tests.test_features import synthetic_speech


@pytest.mark.parametrize(
    "size, n_fft, hop",
    [
        (400, 400, 160),  # 20 x 20
        (400, 512, 160),  # 16 x 32, filled up with zeros
        (401, 512, 160),  # the window ends within a row
        (200, 256, 80),
        (275, 512, 110),
        (275, 275, 110),  # an odd transform
        (31, 31, 7),  # no common factor: the plain product
        (8, 8, 8),
    ],
)
@pytest.mark.parametrize("rest", [0, 1, 5])
def test_spectra_are_those_of_torch(size, n_fft, hop, rest):
    torch.manual_seed(0)
    wavs, window = torch.randn(2, size + 3 * hop + rest), torch.rand(size) + 0.1
    transform = FrameSpectrum(window, n_fft, hop)
    expected = torch.fft.fft(wavs.unfold(1, size, hop).double() * window, n_fft).transpose(1, 2)
    found = torch.complex(*transform(transform.crop(wavs))).to(expected.dtype)
    assert torch.allclose(found, expected[:, transform.bins], atol=2e-6 * n_fft)
    # Every bin that a real signal needs is there, once, when filters are spread.
    power = found.abs().square().float()
    filters = torch.rand(n_fft // 2 + 1, 3)
    energies = transform.spread(filters) @ power
    assert torch.allclose(
        energies, filters.T @ expected[:, : n_fft // 2 + 1].abs().square().float(), rtol=1e-4
    )


def test_no_checkpoint_holds_constants():
    assert not FrameSpectrum(torch.ones(400), 400, 160).state_dict()


def test_a_window_longer_than_the_transform_is_refused():
    with pytest.raises(ValueError, match="401 samples"):
        FrameSpectrum(torch.ones(401), 400, 160)


@pytest.mark.parametrize("window", ["povey", "hamming"])
def test_onnx_export_of_kaldi_features(tmp_path, window):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "front_end.onnx"
    front_end = KaldiFbank(window=window)
    wav = synthetic_speech()[None]
    torch.onnx.export(
        exportable_front_end(front_end), (wav,), path, input_names=["wavs"], output_names=["feats"],
        dynamic_axes={"wavs": {0: "batch", 1: "samples"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wavs = torch.stack([synthetic_speech(2.0, 1), synthetic_speech(2.0, 2)])
    exported = torch.from_numpy(session.run(None, {"wavs": wavs.numpy()})[0])
    # One convolution instead of an FFT: other rounding errors, seen where a bin is far below its frame's
    # loudest.
    assert torch.allclose(exported, front_end(wavs), atol=5e-3)
