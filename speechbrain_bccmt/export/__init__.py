"""From a trained model to what others run: a hub folder, ONNX graphs, 8-bit graphs, sherpa-onnx."""
