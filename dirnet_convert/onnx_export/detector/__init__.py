"""From a binarized detector to one ONNX file that gives boxes: network, box decoding and suppression."""
