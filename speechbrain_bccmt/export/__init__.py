"""Export of a trained model to a hub folder, ONNX graphs, 8-bit graphs, sherpa-onnx or a web page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hub": ["export_hub", "push_to_hub"],
        "onnx": ["export_onnx"],
        "quantise": ["quantise_dynamic", "quantise_static"],
        "sherpa": ["fits_sherpa", "sherpa_metadata"],
        "web": ["export_web"],
        "weights": ["shrink_weights"],
    },
)
