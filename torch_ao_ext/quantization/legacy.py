"""For programs and files of torch.ao: its module names, and state_dicts of its quantized modules.

torch.ao's packed weights unpack to quantized tensors when they are saved; only their integers and qparams
are read here.
"""

import importlib
from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized import Sigmoid, Softmax
from torch_ao_ext.nn.quantized._static import QuantizedOutput
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.nn.quantized.dynamic.modules.rnn import RNNBase
from torch_ao_ext.nn.quantized.dynamic.modules.rnn_cells import RNNCellBase
from torch_ao_ext.nn.quantized.modules.embedding_ops import Embedding
from torch_ao_ext.nn.sparse.quantized._base import SparseLinearBase
from torch_ao_ext.ops.sparse_linear import to_block_sparse
from torch_ao_ext.quantization import _packed
from torch_ao_ext.quantization._containers import CONTAINERS, container_of
from torch_ao_ext.quantization._redirect import redirect_imports

__all__ = ["convert_fx", "load_archive", "load_state_dict", "redirect_imports"]

_PACKED = "_packed_params."
# Not in torch.ao's state: how an input is quantized, the stored dtype of a result, our format.
_OWN = ("format_version", "act_quant", "output_dtype", "observed")
# torch.ao saves no qparams of these: they are fixed.
_FIXED = (Sigmoid, Softmax)


class _Reader:
    """What is left of a state_dict of torch.ao, and its translation so far."""

    def __init__(self, state_dict: dict[str, Any]) -> None:
        self.rest = dict(state_dict)
        self.state: dict[str, Any] = {}

    def take(self, key: str) -> Any:
        return self.rest.pop(key, None)

    def _put(self, prefix: str, **values: Any) -> None:
        self.state.update({prefix + key: value for key, value in values.items() if value is not None})

    def _weight_and_bias(self, prefix: str) -> tuple[Any, Any]:
        self.take(prefix + _PACKED + "dtype")
        pair = self.take(prefix + _PACKED + "_packed_params")  # version 3 of Linear
        if pair is not None:
            return pair
        for start in (_PACKED, ""):  # version 2; version 1 and convolutions
            if prefix + start + "weight" in self.rest:
                return self.take(f"{prefix}{start}weight"), self.take(f"{prefix}{start}bias")
        return None, None

    def _weighted(self, prefix: str, module: WeightedModule) -> None:
        weight, bias = self._weight_and_bias(prefix)
        if weight is None:
            return
        found = _named(f"{prefix}weight", _packed.weight_of, weight, module._CHANNEL_AXIS)
        self._put(prefix, qweight=found.data, weight_scale=found.scale, weight_zero_point=found.zero_point)
        self._put(prefix, qbias=None if bias is None else bias.detach().to(torch.float32))

    def _output(self, prefix: str, module: QuantizedOutput) -> None:
        scale, point = self.take(prefix + "scale"), self.take(prefix + "zero_point")
        if scale is None and isinstance(module, _FIXED):
            scale, point = module._buffers["output_scale"], module._buffers["output_zero_point"]
        if scale is not None and point is not None:
            scale, point = torch.as_tensor(scale).reshape(()), torch.as_tensor(point).reshape(())
            self._put(prefix, output_scale=scale.to(torch.float64), output_zero_point=point.to(torch.int64))

    def _table(self, prefix: str, module: Embedding) -> None:
        self.take(prefix + _PACKED + "dtype")
        weight = self.take(prefix + _PACKED + "_packed_weight")
        if weight is None:
            return
        shape = (module.num_embeddings, module.embedding_dim)
        table, bits = _named(f"{prefix}{_PACKED}_packed_weight", _packed.table_of, weight, shape)
        self._put(prefix, qweight=table, row_format=torch.tensor([bits, module.embedding_dim, 0]))

    def _sparse(self, prefix: str) -> None:
        key = f"{prefix}{_PACKED}_packed_params"
        parts = self.take(key)
        self.take(prefix + _PACKED + "dtype")
        self.take(prefix + "op_type")
        if parts is None:
            return
        weight, bias, *block = parts
        found = _named(key, _packed.symmetric_weight, weight)
        blocks = _named(key, to_block_sparse, found.data, tuple(block))
        names = ("qweight", "row_offsets", "column_indices")
        self._put(prefix, **dict(zip(names, blocks, strict=False)), weight_scale=found.scale, qbias=bias)

    def _recurrent_weight(self, prefix: str, name: str, packed: Any) -> None:
        data, scale = _named(prefix + name, _packed.recurrent_weight, packed)
        self._put(prefix, **{name: data, f"{name}_scale": scale})

    def _layers(self, prefix: str, module: RNNBase) -> None:
        ends = [end for layer in range(module.num_layers) for end in module._ends(layer)]
        for k, end in enumerate(ends):
            key = f"{prefix}_all_weight_values.{k}.param"
            cell = self.take(key)
            if cell is None:
                continue
            found = _named(key, _packed.cell_of, cell)
            for name, weight, scale in zip(
                ("weight_ih", "weight_hh"), found.weights, found.scales, strict=True
            ):
                self._put(prefix, **{name + end: weight, f"{name}{end}_scale": scale})
            if module.bias:
                b_ih, b_hh = found.biases
                self._put(prefix, **{f"bias_ih{end}": b_ih, f"bias_hh{end}": b_hh})

    def _cell(self, prefix: str) -> None:
        for side in ("ih", "hh"):
            packed = self.take(f"{prefix}_packed_weight_{side}")
            if packed is not None:
                self._recurrent_weight(prefix, f"weight_{side}", packed)
                bias = packed.unpack()[1]
                self._put(prefix, **{f"bias_{side}": None if bias is None else bias.detach()})

    def _container(self, prefix: str, module: nn.Module) -> None:
        kind = type(module)
        key = prefix + CONTAINERS[kind]
        held = self.rest.get(key)
        if held is None or isinstance(held, torch.Tensor) and not held.is_quantized:
            return
        self.take(key), self.take(prefix + "dtype")
        self.state.update(_named(key, container_of, kind, held).state_dict(prefix=prefix))

    def read(self, name: str, module: nn.Module) -> None:
        """Translates what belongs to one module."""
        prefix = f"{name}." if name else ""
        if type(module) in CONTAINERS:
            self._container(prefix, module)
            return
        if isinstance(module, QuantizedOutput):
            self._output(prefix, module)
        if isinstance(module, WeightedModule):
            if not isinstance(module, QuantizedOutput):  # torch.ao derives it from the static layer
                self.take(prefix + "scale")
                self.take(prefix + "zero_point")
            self._weighted(prefix, module)
        elif isinstance(module, Embedding):
            self._table(prefix, module)
        elif isinstance(module, SparseLinearBase):
            self._sparse(prefix)
        elif isinstance(module, RNNBase):
            self._layers(prefix, module)
        elif isinstance(module, RNNCellBase):
            self._cell(prefix)
        self._put(prefix, **{key: module._buffers.get(key) for key in _OWN})


def _named(key: str, read: Any, *args: Any) -> Any:
    """What `read` makes of an entry; its refusal names the entry."""
    try:
        return read(*args)
    except ValueError as error:
        raise ValueError(f"load_state_dict: '{key}' {error}") from error


def load_state_dict(model: nn.Module, state_dict: dict[str, Any], strict: bool = True) -> Any:
    """Loads a state_dict of a model quantized by torch.ao into the same model quantized here.

    Weights and qparams become those of the file, to the last bit. Read are static, dynamic and embedding
    modules of eager mode, sparse ones, recurrent ones with int8 weights. How dynamic layers quantize
    their input stays as in `model`.

    Args:
        model: made by `quantize_dynamic`, or by `prepare`, any example data and `convert`.
        state_dict: from `state_dict()` of torch.ao's model, saved under any engine.
        strict: every entry must have its place, as in `nn.Module.load_state_dict`.

    Returns:
        What `nn.Module.load_state_dict` returns.

    Raises:
        ValueError: a weight that is not int8 (named).
        RuntimeError: keys or shapes that do not match.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import legacy, quantize_dynamic
        >>> model = quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> legacy.load_state_dict(model, torch.load("torch_ao.pt"))    # doctest: +SKIP
        <All keys matched successfully>
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"load_state_dict: argument 'model' must be a module, got {type(model).__name__}")
    reader = _Reader(state_dict)
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module).__module__.startswith("torch_ao_ext."):
            reader.read(name, module)
    return model.load_state_dict({**reader.rest, **reader.state}, strict)


def convert_fx(graph_module: Any, state_dict: dict[str, Any], **options: Any) -> Any:
    """`quantize_fx.convert_fx` with weights and qparams of a graph that torch.ao has converted.

    Integers and qparams are those of the file. Read are layers (convolutions, linear), functions with
    qparams, recurrent layers, bags and tables; a model whose functions torch.ao quantizes
    elsewhere is refused, by name.

    Args:
        graph_module: from `quantize_fx.prepare_fx` of the float model with the QConfigMapping that
            torch.ao had; needs no data, and is left as it is.
        state_dict: of torch.ao's converted graph, saved under any engine.
        options: of `quantize_fx.convert_fx`.

    Raises:
        TypeError: not a graph module.
        ValueError: an observed value without qparams in the file, an entry without a place.

    Example:
        >>> from torch_ao_ext.quantization import legacy
        >>> int8 = legacy.convert_fx(prepared, torch.load("torch_ao_fx.pt"))    # doctest: +SKIP
    """
    # It loads what works on graphs.
    return importlib.import_module("torch_ao_ext.quantization._legacy_fx").convert_fx(
        graph_module, state_dict, **options
    )


def load_archive(program: Any) -> Any:
    """A TorchScript program of torch.ao's `quantized::` operators as a graph of this library's.

    Static layers (convolutions, linear and sparse linear, sums, products, cat, pooling, norms,
    activations) with constant qparams, dynamic and recurrent layers, embedding tables; the rest of the
    program runs in float. Integers and qparams are those of the program.

    Args:
        program: path or file of an archive, or a ScriptModule; saved under any engine.

    Returns:
        A graph module, which `torch.jit.script` takes again.

    Raises:
        ValueError: an operator without counterpart, weights in float16, control flow that depends on
            values, or no quantized operator; with the line of the program.
        RuntimeError: torch cannot load the file.

    Example:
        >>> from torch_ao_ext.quantization import legacy
        >>> int8 = legacy.load_archive("quantized_resnet.pt")    # doctest: +SKIP
    """
    return importlib.import_module("torch_ao_ext.quantization._archive").load_archive(program)
