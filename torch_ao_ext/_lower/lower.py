"""The passes of `lower`, in order."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from torch_ao_ext._engines import set_engine
from torch_ao_ext._flags import check_flags
from torch_ao_ext._float_ops import FLOAT_LAYERS
from torch_ao_ext._graph_ops import REASON
from torch_ao_ext._lower._attention import lower_attention
from torch_ao_ext._lower._elementwise import lower_between, quantize_before_max_pool
from torch_ao_ext._lower._float_dtype import floats_to_bfloat16
from torch_ao_ext._lower._functions import lower_function, nearest_of_integers
from torch_ao_ext._lower._inputs import check_inputs
from torch_ao_ext._lower._layout import contiguous_outputs, quantize_to_channels_last, views_become_reshapes
from torch_ao_ext._lower._merge import merge_islands
from torch_ao_ext._lower._moves import (
    cancel,
    lift_quantize,
    relu_of_integers,
    sink_dequantize,
)
from torch_ao_ext._lower._norms import lower_norm
from torch_ao_ext._lower._products import PRODUCTS, lower_product
from torch_ao_ext._lower._recurrent import MIXED, lower_recurrent
from torch_ao_ext._lower._rest import lower_rest
from torch_ao_ext._lower._script import LoweredModule
from torch_ao_ext._lower._sdpa import lower_sdpa
from torch_ao_ext._lower._sizes import sizes_by_method
from torch_ao_ext._lower._weights import Constants, NotLowered
from torch_ao_ext.ops import service
from torch_ao_ext.quantization.pt2e._graph import (
    check_graph_module,
    copy_graph_module,
    remove_unused,
    where,
)
from torch_ao_ext.quantization.pt2e._in_place import mark_written
from torch_ao_ext.quantization.pt2e._simplify import drop_dropouts, fold_pads
from torch_ao_ext.quantization.pt2e.convert import fold_constants
from torch_ao_ext.quantization.quantizer._targets import is_call

__all__ = ["lower", "lower_nodes"]

_BACKENDS = ("auto", "onednn", "xnnpack", "native", "reference")
_FLOATS = (torch.float32, torch.bfloat16)
_RECURRENT = (MIXED, torch.int8, torch.int16, torch.bfloat16, None)


def _lower_products(model: fx.GraphModule, weight_only: bool) -> None:
    constants = Constants(model)
    for node in list(model.graph.nodes):
        if not is_call(node, PRODUCTS):
            continue
        try:
            lower_product(model, node, constants, weight_only)
        except NotLowered as reason:
            node.meta[REASON] = str(reason)


_Rule = Callable[[fx.GraphModule, fx.Node], bool]


def _sweep(model: fx.GraphModule, *rules: _Rule) -> None:
    """Applies the rules to every node until nothing changes."""
    changed = True
    while changed:
        changed = False
        for node in list(model.graph.nodes):
            if node.op == "call_function" and not node._erased:
                changed |= any(rule(model, node) for rule in rules)
        model.graph.eliminate_dead_code()


@contextlib.contextmanager
def _engine(backend: str) -> Iterator[None]:
    """Weights packed inside run on this engine."""
    before = service.info()["engine"]
    set_engine(backend)
    try:
        yield
    finally:
        set_engine(before)


def _check(
    model: Any,
    example_inputs: Any,
    backend: Any,
    strict: Any,
    islands: Any,
    float_dtype: Any,
    recurrent_dtype: Any,
) -> None:
    check_graph_module("lower", model)
    if example_inputs is not None and not isinstance(example_inputs, (tuple, list)):
        raise TypeError(
            f"lower: argument 'example_inputs' must be a tuple of inputs, got {type(example_inputs).__name__}"
        )
    if backend not in _BACKENDS:
        raise ValueError(f"lower: argument 'backend' must be one of {', '.join(_BACKENDS)}, got {backend!r}")
    check_flags("lower", strict=strict, islands=islands)
    if float_dtype not in _FLOATS:
        raise ValueError(
            f"lower: argument 'float_dtype' must be torch.float32 or torch.bfloat16, got {float_dtype!r}"
        )
    if recurrent_dtype not in _RECURRENT:
        raise ValueError(
            "lower: argument 'recurrent_dtype' must be 'mixed', torch.int8, torch.int16, torch.bfloat16 "
            f"or None, got {recurrent_dtype!r}"
        )
    if backend != "auto" and example_inputs is None:
        raise ValueError(
            "lower: argument 'example_inputs' must be given with a backend, which is chosen when the "
            f"weights are packed, got None with backend {backend!r}"
        )


def integer_graph(model: fx.GraphModule, float_inside: bool = False) -> fx.GraphModule:
    """A copy of a converted graph with int8 operators.

    Args:
        model: left as it is.
        float_inside: norms and functions of one value stay float between integers, and linears of
            floats with weights in 8 bits.
    """
    model = copy_graph_module(model, LoweredModule)
    mark_written(model)
    views_become_reshapes(model)
    drop_dropouts(model)
    fold_constants(model)
    fold_pads(model)
    _sweep(model, lift_quantize, quantize_before_max_pool, sink_dequantize)
    _lower_products(model, weight_only=not float_inside)
    more = () if float_inside else (lower_norm, lower_function)
    _sweep(model, cancel, relu_of_integers, lift_quantize, sink_dequantize, *more, lower_between)
    lower_rest(model)
    lower_attention(model)
    if not float_inside:
        nearest_of_integers(model)
    quantize_to_channels_last(model)
    contiguous_outputs(model)
    return model


def lower(
    model: fx.GraphModule,
    example_inputs: tuple[Any, ...] | None = None,
    backend: str = "auto",
    strict: bool = False,
    islands: bool = True,
    float_dtype: torch.dtype = torch.float32,
    recurrent_dtype: torch.dtype | str | None = MIXED,
) -> fx.GraphModule:
    """Makes int8 operators of a converted graph: they run in plain eager mode, without a compiler.

    `dequantize -> conv or linear -> activations and add -> quantize` becomes one operator;
    operators that only move values run on the integers; both products of an attention with the
    softmax between them become `attention`, which rounds the weights by its own rule; a linear with
    quantized weights alone becomes `linear_weight_only` with `input_bits` 16 (layers of
    `quantize_weight_only` have 8); what has no int8 operator stays float and `report` says why. A
    linear with inputs quantized at run time takes their range from the data alone: the smallest scale
    of the observer (eps) does not apply.

    Args:
        model: from convert_pt2e; left as it is.
        example_inputs: run once, which packs the weights; None packs at the first call.
        backend: "auto", or the engine that the weights are packed for: "onednn", "xnnpack",
            "native", "reference".
        strict: raise when an operator with quantized weights stays float, or nothing is
            lowered; by default the latter warns.
        islands: merge neighbouring operators into one that runs them in C++ (`ops.island`): the
            same results with less time between operators; `report` and the numeric suite still
            see each. False leaves a node for each operator in the graph.
        float_dtype: torch.bfloat16 runs what stays float in bfloat16, by torch.autocast's rule
            for CPUs, and int8 operators hand bfloat16 on; the model's own inputs and outputs keep
            their dtypes. Each such operator rounds to 8 bits of mantissa. Faster where the CPU
            multiplies bfloat16; elsewhere torch may be slower than in float32.
        recurrent_dtype: of the weights of LSTM, GRU and RNN layers, which become one operator each
            (`ops.lstm`: inputs and states quantized at run time, no calibration) though no quantizer
            asks for them; "mixed" is quantize_dynamic's default (int16 where it costs little, see
            `MixedWeightObserver`), torch.int16 and torch.bfloat16 are more exact, None leaves the
            layers float.

    Returns:
        A new graph module.

    Raises:
        TypeError: not a graph module; example_inputs no tuple.
        ValueError: unknown backend, a backend without example_inputs, another dtype; with
            strict, an operator that stays float, by node and reason.

    Example:
        >>> import torch, torch_ao_ext
        >>> from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).eval()
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        >>> prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        >>> _ = prepared(x)
        >>> torch_ao_ext.report(torch_ao_ext.lower(convert_pt2e(prepared))).int8["linear"]
        1
    """
    _check(model, example_inputs, backend, strict, islands, float_dtype, recurrent_dtype)
    model = integer_graph(model)
    if recurrent_dtype is not None:
        lower_recurrent(model, recurrent_dtype)
    if float_dtype == torch.bfloat16:
        floats_to_bfloat16(model)
    check_inputs(model, sizes_by_method(model))
    remove_unused(model)
    _complain(model, strict)
    lower_sdpa(model)  # no operator of quantized tensors
    if islands:
        merge_islands(model)
    model.graph.lint()
    model.recompile()
    if example_inputs is not None:
        forced = contextlib.nullcontext() if backend == "auto" else _engine(backend)
        with forced, torch.no_grad():
            model(*example_inputs)
    return model


def lower_nodes(model: fx.GraphModule) -> fx.GraphModule:
    """`lower` for graph mode and TorchScript.

    Their users edit the graph, so that it has a node for each operator; recurrent layers are
    converted before, by their QConfigs.
    """
    return lower(model, islands=False, recurrent_dtype=None)


def _is_dequantize(node: fx.Node) -> bool:
    return node.op == "call_function" and "dequantize_per_" in str(node.target)


def _computes(node: fx.Node) -> bool:
    """Whether a node is one of our operators, and more than a change of type."""
    name = str(node.target)
    return node.op == "call_function" and name.startswith("torch_ao.") and "quantize_per_tensor" not in name


def _complain(model: fx.GraphModule, strict: bool) -> None:
    # Only where the quantizer asked for int8.
    layers = [n for n in model.graph.nodes if n.target in FLOAT_LAYERS and REASON in n.meta]
    floats = [n for n in layers if any(_is_dequantize(i) for i in n.all_input_nodes)]
    if strict and floats:
        first = floats[0]
        raise ValueError(
            f"lower: argument 'model' must run in int8 throughout when strict, got {len(floats)} float "
            f"operators; {where(first)}: {first.meta[REASON]}"
        )
    if any(_computes(node) for node in model.graph.nodes):
        return
    message = (
        "lower: argument 'model' must hold an operator of quantized tensors that has an int8 form, as "
        "convert_pt2e makes, got none"
    )
    if strict:
        raise ValueError(message)
    warnings.warn(message, stacklevel=3)
