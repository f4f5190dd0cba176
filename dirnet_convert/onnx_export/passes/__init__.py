"""Rewrites of the exported graph, one a file, and their order."""

from __future__ import annotations

import onnx_ir as ir

from dirnet_convert.onnx_export.passes.expand_prelu import expand_prelu
from dirnet_convert.onnx_export.passes.fold_batch_norm import fold_batch_norm
from dirnet_convert.onnx_export.passes.fuse_bits import fuse_bits
from dirnet_convert.onnx_export.passes.fuse_epilogue import fuse_epilogue
from dirnet_convert.onnx_export.passes.fuse_stem import fuse_stem
from dirnet_convert.onnx_export.passes.hoist_binarize import hoist_binarize
from dirnet_convert.onnx_export.passes.layout import choose_layout, remaining_transposes
from dirnet_convert.onnx_export.passes.mean_product import mean_product
from dirnet_convert.onnx_export.passes.merge_binarize import merge_binarize
from dirnet_convert.onnx_export.passes.merge_slices import merge_slices
from dirnet_convert.onnx_export.passes.simplify_reshape import simplify_reshape

# Batch normalization first, since it stands between layers and what else fuses; bits late, since a
# convolution writes the bits of what its epilogue yields; last what no operator took.
PASSES = (
    simplify_reshape,
    merge_slices,
    fold_batch_norm,
    hoist_binarize,
    choose_layout,
    mean_product,
    merge_binarize,
    fuse_epilogue,
    fuse_stem,
    fuse_bits,
    expand_prelu,
)


def run_passes(model: ir.Model) -> dict[str, int]:
    """Run every rewrite in its order; return how much each one changed."""
    return {rewrite.__name__: rewrite(model) for rewrite in PASSES}


__all__ = [
    "PASSES",
    "choose_layout",
    "expand_prelu",
    "fold_batch_norm",
    "fuse_bits",
    "fuse_epilogue",
    "fuse_stem",
    "hoist_binarize",
    "mean_product",
    "merge_binarize",
    "merge_slices",
    "remaining_transposes",
    "run_passes",
    "simplify_reshape",
]
