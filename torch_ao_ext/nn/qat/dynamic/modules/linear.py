"""Linear layer trained for dynamic quantization."""

from typing import Any

from torch_ao_ext.nn import qat

__all__ = ["Linear"]


class Linear(qat.Linear):
    """`nn.qat.Linear` whose qconfig is dynamic: inputs are not observed, they are quantized anew.

    Raises:
        ValueError: no qconfig, or its activation is static.
    """

    def _set_qconfig(self, qconfig: Any) -> None:
        super()._set_qconfig(qconfig)
        made = qconfig.activation() if qconfig.activation is not None else None
        inner = getattr(made, "activation_post_process", made)
        dynamic = getattr(made, "is_dynamic", False) or getattr(inner, "is_dynamic", False)
        # torch.ao's: a moving average that forgets at once.
        if not dynamic and getattr(inner, "averaging_constant", 0) != 1:
            raise ValueError(
                "Linear: qconfig.activation must be dynamic (default_dynamic_qat_qconfig), got "
                f"{type(inner).__name__}"
            )
