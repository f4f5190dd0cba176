"""From a PyTorch module to an ONNX graph that is ready for the rewrites."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.ir_tools import is_ours
from dirnet_convert.onnx_export.labels import name_nodes

# What every ONNX Runtime since 1.17 runs, and new enough for the operators' bodies.
OPSET = 20
BATCH = "N"
INPUT_NAME, OUTPUT_NAME = "input", "output"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's progress lines and its warnings about its own insides from the person's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def trace(network: nn.Module, example: Tensor) -> ir.Model:
    """Export ``network`` on ``example`` (N, C, H, W), with nodes named by module.

    The batch is free where the network allows it, and else fixed to one image.

    Raises:
        DirnetError: PyTorch cannot export the network, or it returns something else than one tensor.
    """
    # torch.export takes a free batch of one for a constant.
    pair = torch.cat([example, example])[:2].detach().cpu()
    with torch.no_grad():
        output = network(pair)
    if not isinstance(output, Tensor):
        raise DirnetError(
            f"The network returns {type(output).__name__}, and only one tensor can be exported; "
            "wrap it in a module that returns its logits."
        )
    try:
        model = _export_any_batch(network, pair) or _export(network, pair[:1], None)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DirnetError(
            f"PyTorch cannot export this network ({reason}); a forward() without branches on the input's "
            "values can be exported."
        ) from error
    _tidy(model)
    return model


def _export_any_batch(network: nn.Module, pair: Tensor) -> ir.Model | None:
    """Return the graph with a free batch, or None where the network fixes it."""
    try:
        model = _export(network, pair, ({0: torch.export.Dim(BATCH)},))
    except torch.onnx.OnnxExporterError:
        return None
    # A loop over the images does not fail: PyTorch takes the example's batch for a constant instead.
    return None if isinstance(model.graph.inputs[0].shape[0], int) else model


def _export(network: nn.Module, example: Tensor, dynamic_shapes: tuple[dict, ...] | None) -> ir.Model:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic_shapes,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            optimize=False,
            verbose=False,
        )
    return program.model


def _tidy(model: ir.Model) -> None:
    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    name_nodes(model)
    _retype_words(model)


def _retype_words(model: ir.Model) -> None:
    """Give packed weights, which travelled as int64, their type."""
    for node in model.graph:
        if not is_ours(node, "BinaryConv2d", "BinaryGemm"):
            continue
        value = node.inputs[1]
        words = value.const_value.numpy()
        if words.dtype != "uint64":
            value.const_value = ir.tensor(words.view("uint64"), name=value.name)
            value.type = ir.TensorType(ir.DataType.UINT64)
