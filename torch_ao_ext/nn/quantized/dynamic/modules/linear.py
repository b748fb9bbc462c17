"""Linear layers with int8 weights and float inputs quantized on the fly."""

from typing import Any, NamedTuple

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._state import keep_dtypes, state_refusal
from torch_ao_ext.nn.quantized._weight import check_finite, quantize_rows, symmetric_row_scale

__all__ = ["DynamicQuant", "Linear"]

# The overloads, looked up once: attribute walks through torch.ops cost more than
# a small GEMM.
_linear_dynamic = torch.ops.torch_ao.linear_dynamic.default

_FORMAT_VERSION = 1

_INT8 = (torch.int8, getattr(torch, "qint8", torch.int8))


class DynamicQuant(NamedTuple):
    """How the float input becomes integers, see `ops.linear_dynamic`.

    The default is this library's: each row has its own scale and zero point,
    values are 0..255. torch.ao's is `TORCH_AO_DYNAMIC_QUANT`.
    """

    per_row: bool = True
    symmetric: bool = False
    reduce_range: bool = False


# torch.ao: one scale for the whole input, values 0..127 (7 bits kept its AVX2
# kernels from saturating; ours never do).
TORCH_AO_DYNAMIC_QUANT = DynamicQuant(per_row=False, symmetric=False, reduce_range=True)


class QuantizedWeight(NamedTuple):
    """int8 `[N, K]` with scale `[1]` or `[N]` and zero point of that shape or None."""

    data: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None


def _dynamic_quant_of(qconfig: Any) -> DynamicQuant:
    """Input rule of a qconfig: ours when its activation observer names one."""
    activation = qconfig.activation() if qconfig.activation is not None else None
    return getattr(activation, "dynamic_quant", None) or TORCH_AO_DYNAMIC_QUANT


def weight_observer(qconfig: Any) -> Any:
    """A fresh weight observer of the qconfig; None when it names none.

    Raises:
        ValueError: it is not for int8 weights with output channels on axis 0.
    """
    if qconfig.weight is None:
        return None
    observer = qconfig.weight()
    dtype = getattr(observer, "dtype", None)
    if dtype not in _INT8:
        raise ValueError(f"qconfig.weight must observe for int8 (torch.qint8), got {dtype}")
    if getattr(observer, "ch_axis", 0) != 0:
        raise ValueError(
            f"qconfig.weight must have ch_axis 0 (output channels), got {observer.ch_axis}"
        )
    return observer


def quantize_weight(weight: torch.Tensor, qconfig: Any) -> QuantizedWeight:
    """int8 weight under the qconfig's weight observer; default rule when it has none.

    Args:
        weight: float `[N, K]` on CPU.
        qconfig: object with `activation` and `weight` factories (torch.ao's too).

    Raises:
        ValueError: the weight is not finite, or the observer is not an int8 one.
    """
    check_finite(weight, "weight")
    observer = weight_observer(qconfig)
    if observer is None:
        scale = symmetric_row_scale(weight)
        return QuantizedWeight(quantize_rows(weight, scale), scale, None)
    observer(weight.detach())
    scale, zero_point = observer.calculate_qparams()
    scale = scale.to(torch.float32).reshape(-1)
    zero_point = zero_point.to(torch.int32).reshape(-1)
    points = zero_point if bool(zero_point.any()) else None
    # torch.ao rounds weights into all of [-128, 127] whatever the observer's range.
    return QuantizedWeight(quantize_rows(weight, scale, points), scale, points)


def _is_conv1d(module: nn.Module) -> bool:
    """A transformers `Conv1D`: a linear layer with its weight stored [K, N].

    Known by name and shape, because transformers is no dependency.
    """
    weight = getattr(module, "weight", None)
    features = getattr(module, "nf", None)
    return (
        type(module).__name__ == "Conv1D"
        and isinstance(features, int)
        and isinstance(weight, torch.Tensor)
        and weight.dim() == 2
        and weight.shape[1] == features
    )


class Linear(nn.Module):
    r"""y = x W^T + b with int8 W; x is quantized row by row inside the operator.

    Names and constructor follow `torch.ao.nn.quantized.dynamic.Linear`, but the
    state is plain tensors, in every file format the same on every machine:

    - `qweight` int8 `[N, K]`, `weight_scale` float32 `[1]` or `[N]`,
      `weight_zero_point` int32 of the scale's shape or None (all zero),
      `qbias` float32 `[N]` or None
    - `format_version` int64 `[]`, `act_quant` int64 `[3]`: per_row, symmetric, reduce_range

    Input `[*, K]` in float32 or bfloat16, output `[*, N]` in the input's dtype.
    Autocast does not change that: under `torch.autocast` a float32 input gives a
    float32 output. Scales and bias stay float32 under `.half()`, `.to(dtype)`.
    Inference only: a backward pass raises.

    Args:
        in_features: K.
        out_features: N.
        bias_: with a bias.
        dtype: torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.dynamic.Linear(20, 30)
        >>> layer(torch.randn(128, 20)).shape
        torch.Size([128, 30])
    """

    _POST_OP = ""

    in_features: int
    out_features: int
    qweight: torch.Tensor
    weight_scale: torch.Tensor
    weight_zero_point: torch.Tensor | None
    qbias: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype = _INT8[-1],
    ) -> None:
        super().__init__()
        if dtype not in _INT8:
            raise ValueError(f"Linear: argument 'dtype' must be torch.qint8 or int8, got {dtype}")
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("qweight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.register_buffer("weight_zero_point", None)
        self.register_buffer("qbias", torch.zeros(out_features) if bias_ else None)
        self.register_buffer("format_version", torch.tensor(_FORMAT_VERSION))
        self._set_dynamic_quant(DynamicQuant())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`, same dtype."""
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.linear_dynamic(
                x,
                self.qweight,
                self.weight_scale,
                self.weight_zero_point,
                self.qbias,
                self.per_row,
                self.symmetric,
                self.reduce_range,
            )
        else:
            # The buffer dict: nn.Module.__getattr__ costs 0.3 us a name.
            b = self._buffers
            if self.is_default:
                y = _linear_dynamic(
                    x, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"]
                )
            else:
                y = _linear_dynamic(
                    x,
                    b["qweight"],
                    b["weight_scale"],
                    b["weight_zero_point"],
                    b["qbias"],
                    self.per_row,
                    self.symmetric,
                    self.reduce_range,
                )
        return y

    @property
    def dynamic_quant(self) -> DynamicQuant:
        """How the input is quantized."""
        return DynamicQuant(self.per_row, self.symmetric, self.reduce_range)

    def _set_dynamic_quant(self, rule: DynamicQuant) -> None:
        # Python bools for forward, and a buffer so that every file format keeps them.
        self.per_row = bool(rule.per_row)
        self.symmetric = bool(rule.symmetric)
        self.reduce_range = bool(rule.reduce_range)
        self.is_default = self.dynamic_quant == DynamicQuant()
        self.register_buffer("act_quant", torch.tensor(self.dynamic_quant, dtype=torch.int64))

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weight now instead of at the first call, for inputs of this dtype."""
        torch.ops.torch_ao._prepack_linear_dynamic(
            self.qweight,
            self.weight_scale,
            self.weight_zero_point,
            self.qbias,
            dtype,
            self.per_row,
            self.symmetric,
            self.reduce_range,
            dtype,
            self._POST_OP,
        )

    def weight(self) -> QuantizedTensor:
        """The int8 weight with its qparams (shares memory)."""
        return QuantizedTensor(self.qweight, self.weight_scale, self.weight_zero_point)

    def bias(self) -> torch.Tensor | None:
        """The float32 bias `[N]`, or None."""
        return self.qbias

    def set_weight_bias(self, w: Any, b: torch.Tensor | None) -> None:
        """Replaces weight and bias.

        Args:
            w: QuantizedTensor, or any object with `int_repr()` and `qscheme()` of a
                per-tensor or per-channel (axis 0) int8 weight `[N, K]`.
            b: float `[N]`, or None.

        Raises:
            ValueError: wrong shape or dtype.
        """
        data = w.int_repr()
        if w.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scale = torch.tensor([w.q_scale()], dtype=torch.float32)
            point = torch.tensor([w.q_zero_point()], dtype=torch.int32)
        else:
            if w.q_per_channel_axis() != 0:
                raise ValueError(
                    "Linear.set_weight_bias: argument 'w' must be quantized along axis 0, "
                    f"got axis {w.q_per_channel_axis()}"
                )
            scale = w.q_per_channel_scales().to(torch.float32)
            point = w.q_per_channel_zero_points().to(torch.int32)
        self._set_state(QuantizedWeight(data, scale, point if bool(point.any()) else None), b)

    def _set_state(self, weight: QuantizedWeight, bias: torch.Tensor | None) -> None:
        shape = (self.out_features, self.in_features)
        if weight.data.dtype != torch.int8 or tuple(weight.data.shape) != shape:
            raise ValueError(
                f"Linear: argument 'weight' must be int8 {list(shape)}, "
                f"got {weight.data.dtype} {list(weight.data.shape)}"
            )
        if bias is not None:
            if tuple(bias.shape) != (self.out_features,):
                raise ValueError(
                    f"Linear: argument 'bias' must be [{self.out_features}], "
                    f"got {list(bias.shape)}"
                )
            check_finite(bias, "bias")
            bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self.qweight = weight.data.contiguous()
        self.weight_scale = weight.scale
        self.weight_zero_point = weight.zero_point
        self.qbias = bias

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Linear":
        """Quantized copy of a float layer whose `qconfig` is set.

        Args:
            mod: nn.Linear (or a subclass with its forward), or transformers' Conv1D.
            use_precomputed_fake_quant: torch.ao's flag, for QAT modules; not used here.

        Raises:
            ValueError: no qconfig, a weight that is not finite, an unsupported qconfig.
        """
        del use_precomputed_fake_quant
        qconfig = getattr(mod, "qconfig", None)
        if qconfig is None:
            raise ValueError(f"{cls.__name__}.from_float: argument 'mod' must have a qconfig")
        if not isinstance(mod, nn.Linear) and not _is_conv1d(mod):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.Linear or Conv1D, "
                f"got {type(mod).__name__}"
            )
        weight = mod.weight.detach()
        if _is_conv1d(mod):
            weight = weight.t()
        return cls._from_parts(
            quantize_weight(weight, qconfig), mod.bias, _dynamic_quant_of(qconfig)
        )

    @classmethod
    def _from_parts(
        cls, weight: QuantizedWeight, bias: torch.Tensor | None, rule: DynamicQuant
    ) -> "Linear":
        out_features, in_features = weight.data.shape
        # meta: no zero-filled weight is allocated only to be replaced.
        module = cls.__new__(cls)
        with torch.device("meta"):
            Linear.__init__(module, in_features, out_features, bias is not None)
        module._set_state(weight, bias)
        module.format_version = torch.tensor(_FORMAT_VERSION)
        module._set_dynamic_quant(rule)
        module.eval()
        return module

    def _apply(self, fn: Any, recurse: bool = True) -> "Linear":
        inner = super()._apply
        keep_dtypes(self, ("weight_scale", "qbias"), lambda: inner(fn, recurse))
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        refusal = state_refusal(state_dict, prefix, _FORMAT_VERSION)
        if refusal is not None:
            error_msgs.append(refusal)
            return
        # The optional and variable-shaped buffers take the form they have in the file.
        # A buffer that has this form already is kept: tied layers share it.
        scale = state_dict.get(prefix + "weight_scale")
        if (
            scale is not None
            and scale.shape != self.weight_scale.shape
            and scale.shape in ((1,), (self.out_features,))
        ):
            self.weight_scale = torch.empty(scale.shape, device=self.weight_scale.device)
        if prefix + "qweight" in state_dict:
            self._match_optional(state_dict, prefix, "weight_zero_point", torch.int32)
            self._match_optional(state_dict, prefix, "qbias", torch.float32)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        rule = state_dict.get(prefix + "act_quant")
        if rule is not None and tuple(rule.shape) == (3,):
            self._set_dynamic_quant(DynamicQuant(*map(bool, rule.tolist())))

    def _match_optional(
        self, state_dict: dict[str, Any], prefix: str, name: str, dtype: torch.dtype
    ) -> None:
        value = state_dict.get(prefix + name)
        if value is None:
            self._buffers[name] = None
        elif self._buffers[name] is None or self._buffers[name].shape != value.shape:
            if value.shape in ((1,), (self.out_features,)):
                self._buffers[name] = torch.empty(
                    value.shape, dtype=dtype, device=self.qweight.device
                )

    def _get_name(self) -> str:
        return "DynamicQuantizedLinear"

    def extra_repr(self) -> str:
        """Shape, qscheme and the input rule, as print(model) shows them."""
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, dtype=torch.int8, qscheme={self.weight().qscheme()}"
        )
        if not self.is_default:
            text += (
                f", per_row={self.per_row}, symmetric={self.symmetric}, "
                f"reduce_range={self.reduce_range}"
            )
        return text
