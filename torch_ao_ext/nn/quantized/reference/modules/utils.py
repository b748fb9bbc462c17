"""What reference modules share: weights stay float, each use rounds them to the grid of their qparams.

q = clamp(round(w / scale + zero_point), low, high), and w' = (q - zero_point) scale.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import qparams_found
from torch_ao_ext.nn.quantized._weight import check_finite

__all__ = ["ReferenceQuantizedModule", "ReferenceWeights"]

# The largest float32 below 2^31: clamping to 2^31 - 1 in float32 would overflow int32.
_INT32_MAX = 2**31 - 128
_GRIDS = {
    "quint8": (torch.uint8, 0, 255),
    "uint8": (torch.uint8, 0, 255),
    "qint8": (torch.int8, -128, 127),
    "int8": (torch.int8, -128, 127),
    "quint4x2": (torch.uint8, 0, 15),
    "qint32": (torch.int32, -(2**31), _INT32_MAX),
    "int32": (torch.int32, -(2**31), _INT32_MAX),
}
_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
_QSCHEMES = (None, torch.per_tensor_affine, *_PER_CHANNEL)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_UNSET = {"qscheme": torch.per_tensor_affine, "dtype": torch.uint8, "scale": 1.0, "zero_point": 0}
_SAVED = ("qscheme", "dtype", "quant_min", "quant_max")
_BUFFERS = ("scale", "zero_point", "axis")


def _grid(dtype: torch.dtype) -> tuple[torch.dtype, int, int] | None:
    return _GRIDS.get(str(dtype).removeprefix("torch."))


def _number(value: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return torch.tensor(value, dtype=dtype, device=device)


class _Rounded:
    """A module as the forward of its float class sees it: with rounded weights."""

    def __init__(self, module: "ReferenceWeights") -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        module = self._module
        if name == "_flat_weights":
            return module.get_flat_weights()
        if name == "_update_flat_weights":
            return lambda: None
        if name in module.weight_names():
            return module._dequantized(name)
        return getattr(module, name)


class ReferenceWeights(nn.Module):
    """Put before the float class `_FLOAT` in the bases.

    Per weight `<name>`, as attributes: `<name>_qscheme`, `<name>_dtype`, `<name>_quant_min`,
    `<name>_quant_max`; as buffers: `<name>_scale`, `<name>_zero_point`, `<name>_axis`. All are in the
    state_dict.
    """

    _FLOAT: ClassVar[type[nn.Module]]
    _IS_REFERENCE = True

    def weight_names(self) -> list[str]:
        """Parameters that have qparams."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The float class's forward with rounded weights."""
        return self._FLOAT.forward(_Rounded(self), *args, **kwargs)

    def _set_qparams(self, name: str, qparams: dict[str, Any] | None) -> None:
        who = type(self).__name__
        qparams = _UNSET if qparams is None else qparams
        missing = [key for key in ("qscheme", "dtype") if key not in qparams]
        qscheme, dtype = qparams.get("qscheme"), qparams.get("dtype")
        if qscheme is not None:
            missing += [key for key in ("scale", "zero_point") if key not in qparams]
            if qscheme in _PER_CHANNEL and "axis" not in qparams:
                missing.append("axis")
        if missing:
            raise ValueError(f"{who}: argument 'weight_qparams' must have {missing} for '{name}'")
        if qscheme not in _QSCHEMES:
            raise ValueError(f"{who}: qscheme of '{name}' must be None or affine, got {qscheme}")
        if _grid(dtype) is None and not (qscheme is None and dtype in _FLOATS):
            raise ValueError(f"{who}: dtype of '{name}' must fit qscheme {qscheme}, got {dtype}")
        for key in _SAVED:
            setattr(self, f"{name}_{key}", qparams.get(key))
        device = getattr(self, name).device
        scale = _number(qparams.get("scale", 1.0), torch.float32, device)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ValueError(f"{who}: scale of '{name}' must be finite and positive, got {scale}")
        self.register_buffer(f"{name}_scale", scale)
        point = _number(qparams.get("zero_point", 0), torch.int32, device)
        self.register_buffer(f"{name}_zero_point", point)
        self.register_buffer(f"{name}_axis", _number(qparams.get("axis", 0), torch.int32, device))
        self._read_axis(name)
        if qscheme in _PER_CHANNEL:
            axis, shape = getattr(self, f"{name}_axis_int"), getattr(self, name).shape
            if not 0 <= axis < len(shape) or scale.shape != (shape[axis],) or point.shape != scale.shape:
                raise ValueError(
                    f"{who}: '{name}' {list(shape)} must have one scale and zero point per index of axis "
                    f"{axis}, got {list(scale.shape)} and {list(point.shape)}"
                )
        elif scale.numel() != 1 or point.numel() != 1:
            raise ValueError(f"{who}: '{name}' must have one scale and zero point, got {scale.numel()}")

    def _read_axis(self, name: str) -> None:
        # A Python number: torch.export must not see the tensor's value.
        setattr(self, f"{name}_axis_int", int(getattr(self, f"{name}_axis")))

    def _on_axis(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if getattr(self, f"{name}_qscheme") not in _PER_CHANNEL:
            return value.reshape(())
        shape = [1] * getattr(self, name).dim()
        shape[getattr(self, f"{name}_axis_int")] = -1
        return value.reshape(shape)

    def _quantized(self, name: str) -> torch.Tensor:
        """Integers of the weight; without a qscheme the weight in the asked dtype."""
        weight, dtype = getattr(self, name), getattr(self, f"{name}_dtype")
        if getattr(self, f"{name}_qscheme") is None:
            return weight.to(dtype) if dtype in _FLOATS else weight
        stored, low, high = _grid(dtype)
        least, most = getattr(self, f"{name}_quant_min"), getattr(self, f"{name}_quant_max")
        if self.is_decomposed and least is not None and most is not None:
            low, high = max(low, least), min(high, most)
        scale = self._on_axis(name, getattr(self, f"{name}_scale"))
        point = self._on_axis(name, getattr(self, f"{name}_zero_point"))
        value = weight.to(torch.float32) * scale.reciprocal() + point
        return value.round().clamp(low, high).to(stored)

    def _dequantized(self, name: str) -> torch.Tensor:
        data, weight = self._quantized(name), getattr(self, name)
        if getattr(self, f"{name}_qscheme") is None:
            return data.to(weight.dtype)
        scale = self._on_axis(name, getattr(self, f"{name}_scale"))
        point = self._on_axis(name, getattr(self, f"{name}_zero_point"))
        return ((data.to(torch.float32) - point) * scale).to(weight.dtype)

    def get_flat_weights(self) -> list[torch.Tensor | None]:
        """Rounded weights and biases in the order of recurrent layers."""
        own = self.weight_names()
        names = self._flat_weights_names
        return [self._dequantized(n) if n in own else getattr(self, n, None) for n in names]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.weight_names():
            for key in _SAVED:
                destination[f"{prefix}{name}_{key}"] = getattr(self, f"{name}_{key}")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self.weight_names():
            for key in _SAVED:
                if f"{prefix}{name}_{key}" in state_dict:
                    setattr(self, f"{name}_{key}", state_dict.pop(f"{prefix}{name}_{key}"))
            for key in _BUFFERS:
                value = state_dict.get(f"{prefix}{name}_{key}")
                if value is not None:
                    self._buffers[f"{name}_{key}"] = torch.empty_like(value)
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name in self.weight_names():
            self._read_axis(name)

    @classmethod
    def _copy_of(cls, mod: nn.Module) -> Any:
        """Sizes and parameters of a float layer; the parameters' memory is shared."""
        if not isinstance(mod, cls._FLOAT):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{cls._FLOAT.__name__}, "
                f"got {type(mod).__name__}"
            )
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        common = new.__dict__.keys()
        new.__dict__.update({k: v for k, v in mod.__dict__.items() if k not in common and k != "qconfig"})
        for name, value in mod._parameters.items():
            shared = None if value is None else nn.Parameter(value.detach(), value.requires_grad)
            new._parameters[name] = shared
        new.training = mod.training
        if isinstance(new, nn.RNNBase):
            new._init_flat_weights()
        for name in new.weight_names():
            if name not in new._parameters:
                raise ValueError(f"{cls.__name__}.from_float: '{name}' of argument 'mod' must be a parameter")
            check_finite(new._parameters[name], name)
        return new

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}(Reference)"


class ReferenceQuantizedModule(ReferenceWeights):
    """A layer with one weight.

    `weight_qparams` is what `quantization.utils.get_qparam_dict` gives: qscheme (None, per_tensor_affine,
    per_channel_affine, per_channel_affine_float_qparams), dtype, scale, zero_point, axis, and
    optionally quant_min and quant_max, which count when is_decomposed is True; the dtype's range
    otherwise, as in torch.ao. Without: quint8, scale 1, zero point 0.
    """

    def __init__(
        self, *args: Any, weight_qparams: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._init_weight_qparams(weight_qparams)

    def _init_weight_qparams(self, weight_qparams: dict[str, Any] | None) -> None:
        self.is_decomposed = bool((weight_qparams or {}).get("is_decomposed", False))
        self._set_qparams("weight", weight_qparams)

    def weight_names(self) -> list[str]:
        """`["weight"]`."""
        return ["weight"]

    def get_weight(self) -> torch.Tensor:
        """The weight rounded to its grid, in the float dtype."""
        return self._dequantized("weight")

    def get_quantized_weight(self) -> torch.Tensor:
        """Integers of the weight (uint8, int8 or int32), of the weight's shape."""
        return self._quantized("weight")

    @classmethod
    def from_float(
        cls,
        mod: nn.Module,
        weight_qparams: dict[str, Any] | None = None,
        use_precomputed_fake_quant: bool = False,
    ) -> Any:
        """Reference copy of a float layer; the weight's memory is shared.

        Args:
            mod: layer of the float class.
            weight_qparams: see the class; default what the weight observer of `mod.qconfig` finds.
            use_precomputed_fake_quant: accepted, has no effect.

        Raises:
            ValueError: another type, a weight that is not finite, qparams that do not fit.
        """
        new = cls._copy_of(mod)
        if weight_qparams is None:
            weight_qparams = observed_qparams(cls.__name__, mod, "weight")
        new._init_weight_qparams(weight_qparams)
        return new


def observed_qparams(who: str, mod: nn.Module, name: str) -> dict[str, Any]:
    """What the weight observer of the qconfig finds for one weight.

    Raises:
        ValueError: the module has no qconfig with one.
    """
    qconfig = getattr(mod, "qconfig", None)
    if qconfig is None or qconfig.weight is None:
        raise ValueError(f"{who}.from_float: argument 'mod' must have a qconfig with a weight observer")
    observer = qconfig.weight()
    observer(getattr(mod, name).detach())
    return qparams_found(observer)
