"""Follows a network's forward with torch.fx and an example, so that branches on shapes are decided."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

# What a network raises where a value is not the tensor that it expects: a stand-in, or an image of another
# shape.
REJECTIONS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Control flow on values raises TraceError; a proxy in the wrong place raises whatever its receiver does.
UNTRACEABLE = (fx.proxy.TraceError, *REJECTIONS)
# What tells of a tensor's shape and kind, and nothing of its values.
_SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "layout"}
_SHAPE_METHODS = {"size", "dim", "ndimension", "numel", "nelement", "stride", "is_floating_point"}


class _KnownProxy(fx.Proxy):
    """A stand-in whose example is known, so that sizes can be counted and compared."""

    def __getattr__(self, k: str) -> fx.proxy.Attribute:
        return _KnownAttribute(self, k)

    def __len__(self) -> int:
        return len(self.tracer.known(self, tuple | list | dict))

    def __index__(self) -> int:
        return self.tracer.known(self, int).__index__()

    def __int__(self) -> int:
        return int(self.tracer.known(self, int | float))

    def __float__(self) -> float:
        return float(self.tracer.known(self, int | float))


class _KnownAttribute(_KnownProxy, fx.proxy.Attribute):
    """An attribute of a stand-in; a value of the graph only where it is used."""

    @property
    def node(self) -> fx.Node:
        try:
            if self._node is None:
                # Kept, since an example lives as long as its stand-in.
                self._proxy = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {})
                self._node = self._proxy.node
            return self._node
        # Python would look for another attribute, named node.
        except AttributeError as error:
            raise fx.proxy.TraceError(cause_of(error)) from error


class ExampleTracer(fx.Tracer):
    """Traces a network of one input while computing every value of an example.

    Sizes that follow from the example's shape decide branches and count loops; values of tensors do not. A
    module stays one node where it is of torch.nn, a batch norm, a layer with weights, or has nothing inside;
    and where its forward cannot be followed, which ``opaque`` notes with the cause.
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.opaque: dict[str, str] = {}
        self._example = example
        self._values: dict[fx.Node, Any] = {}
        self._shape_only: set[fx.Node] = set()
        self._computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Batch norm, stochastic depth and the like read self.training: traced into, it would be frozen.
        return (
            super().is_leaf_module(m, module_qualified_name)
            or isinstance(m, nn.modules.batchnorm._BatchNorm | nn.modules.conv._ConvNd | nn.Linear)
            or not any(True for _ in m.children())
        )

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        # Only the images go in; what else forward() takes has its default.
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # What takes lists (a feature pyramid may) can change them, and arguments of a node are fixed.
        if self._computing or any(isinstance(value, list | dict) for value in args):
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        known_nodes = len(self.graph.nodes)
        stack = self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except UNTRACEABLE as error:
            if self.is_leaf_module(m, name):
                raise
            self.module_stack = stack
            for node in reversed(list(self.graph.nodes)[known_nodes:]):
                self.graph.erase_node(node)
            result = self.create_proxy("call_module", name, args, kwargs)
            self.opaque[name] = cause_of(error)
            return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **options)
        self._compute(proxy.node)
        # What no stand-in names any more, nothing can ask for: the examples would fill the memory.
        weakref.finalize(proxy, self._values.pop, proxy.node, None).atexit = False
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _KnownProxy(node, self)

    def known(self, proxy: fx.Proxy, kinds: Any) -> Any:
        """Return the example of ``proxy`` where shapes alone tell it and it is one of ``kinds``.

        Raises:
            TraceError: it depends on the values of the image.
        """
        value = self._values.get(proxy.node)
        shaped = proxy.node in self._shape_only or isinstance(value, tuple | list | dict)
        if not shaped or not isinstance(value, kinds):
            raise fx.proxy.TraceError("control flow depends on the image's values")
        return value

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.known(obj, object))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter([obj[place] for place in range(len(self.known(obj, tuple | list)))])

    def keys(self, obj: fx.Proxy) -> Any:
        return list(self.known(obj, dict))

    def _compute(self, node: fx.Node) -> None:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._value)
        self._computing = True
        try:
            with torch.no_grad():
                self._values[node] = self._call(node, args, kwargs)
        except UNTRACEABLE:
            # The network itself would fail here; what catches the error must not find the node.
            self.graph.erase_node(node)
            raise
        finally:
            self._computing = False
        if not _holds_tensor(self._values[node]) and self._follows_from_shapes(node):
            self._shape_only.add(node)

    def _value(self, node: fx.Node) -> Any:
        # Buffers and constants become nodes where they are an argument, without a stand-in of their own.
        if node not in self._values and node.op == "get_attr":
            self._values[node] = self._call(node, (), {})
        return self._values[node]

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "placeholder":
            return self._example
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs) if node.op == "call_function" else args[0]

    def _follows_from_shapes(self, node: fx.Node) -> bool:
        if node.op == "call_function" and node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES:
            return True
        if node.op == "call_method" and node.target in _SHAPE_METHODS:
            return True
        inputs = node.all_input_nodes
        return node.op in ("call_function", "call_method") and all(n in self._shape_only for n in inputs)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_holds_tensor(v) for v in value)
    return isinstance(value, Tensor) or (isinstance(value, dict) and _holds_tensor(list(value.values())))


def cause_of(error: BaseException) -> str:
    """Return the first line of what ``error`` says, or its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
