"""From a PyTorch module to an ONNX graph that is ready for the rewrites."""

from __future__ import annotations

import contextlib
import enum
import io
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.attention import AttentionOfAnyRank
from dirnet_convert.onnx_export.ir_tools import is_ours
from dirnet_convert.onnx_export.labels import name_nodes
from dirnet_convert.onnx_export.translations import shared_translations
from dirnet_convert.quiet import errors_alone

# What every ONNX Runtime since 1.17 runs, and new enough for the operators' bodies.
OPSET = 20
BATCH = "N"
INPUT_NAME, OUTPUT_NAME = "input", "output"


class Batch(enum.Enum):
    """How many images the graph takes at a time."""

    FREE = "free"
    """Any number, where the network allows it; else one."""
    ONE = "one"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's progress lines and what it says about its own insides from the person's terminal."""
    out, errors = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with errors_alone("torch.onnx"), warnings.catch_warnings(), out, errors:
        warnings.simplefilter("ignore")
        yield


def trace(
    network: nn.Module,
    example: Tensor,
    *,
    outputs: tuple[str, ...] = (OUTPUT_NAME,),
    batch: Batch = Batch.FREE,
) -> ir.Model:
    """Export ``network`` on ``example`` (N, C, H, W), with nodes named by module and results by ``outputs``.

    Raises:
        DirnetError: PyTorch cannot export the network, or it returns something else than that many tensors.
    """
    # torch.export takes a free batch of one for a constant.
    pair = torch.cat([example, example])[:2].detach().cpu()
    with torch.no_grad():
        _check_outputs(network(pair), outputs)
    try:
        model = _export_any_batch(network, pair, outputs) if batch is Batch.FREE else None
        model = model or _export(network, pair[:1], None, outputs)
    except torch.onnx.OnnxExporterError as error:
        reason = (str(_root_cause(error)).strip() or type(error).__name__).splitlines()[0]
        raise DirnetError(
            f"PyTorch cannot export this network ({reason}); a forward() without branches on the input's "
            "values can be exported."
        ) from error
    _tidy(model)
    return model


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _check_outputs(returned: object, names: tuple[str, ...]) -> None:
    values = (returned,) if len(names) == 1 else returned
    tensors = isinstance(values, tuple) and all(isinstance(value, Tensor) for value in values)
    if not tensors or len(values) != len(names):
        wanted = "one tensor" if len(names) == 1 else f"{len(names)} tensors"
        raise DirnetError(
            f"The network returns {type(returned).__name__}, and only {wanted} can be exported; "
            "wrap it in a module that returns its logits."
        )


def _export_any_batch(network: nn.Module, pair: Tensor, outputs: tuple[str, ...]) -> ir.Model | None:
    """Return the graph with a free batch, or None where the network fixes it."""
    try:
        model = _export(network, pair, ({0: torch.export.Dim(BATCH)},), outputs)
    except torch.onnx.OnnxExporterError:
        return None
    # A loop over the images does not fail: PyTorch takes the example's batch for a constant instead.
    return None if isinstance(model.graph.inputs[0].shape[0], int) else model


def _export(
    network: nn.Module,
    example: Tensor,
    dynamic_shapes: tuple[dict, ...] | None,
    outputs: tuple[str, ...],
) -> ir.Model:
    with _quiet(), torch.no_grad(), AttentionOfAnyRank(), shared_translations(OPSET):
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic_shapes,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
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
