"""A binarized network as OpenVINO's own files, with its BinaryConvolution where it has one."""
