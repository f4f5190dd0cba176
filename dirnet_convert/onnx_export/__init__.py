"""From a binarized PyTorch network to one ONNX file that runs with the kernels and without them."""
