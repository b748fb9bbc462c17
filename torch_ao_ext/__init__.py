"""int8 inference on CPU: a LibTorch plugin with torch.ao's module paths.

`import torch_ao_ext` registers the operators `torch.ops.torch_ao.*`. The rest is
loaded on first use, so that the import stays cheap:

    torch_ao_ext.quantization.quantize_dynamic(model)   # nn.Linear, MHA -> int8
    torch_ao_ext.lower(convert_pt2e(prepared))          # an exported graph -> int8 operators
    print(torch_ao_ext.report(model))                   # what runs in int8, and why not
"""

import importlib
from typing import TYPE_CHECKING, Any

from torch_ao_ext import _loader
from torch_ao_ext.version import __version__

_loader.load()

with _loader.fake_kernels():  # they need the loaded schemas
    from torch_ao_ext import ops

if TYPE_CHECKING:
    from torch_ao_ext import nn, ns, pruning, quantization
    from torch_ao_ext._compare import compare, suggest_skip
    from torch_ao_ext._engines import prepack, repack, set_deterministic, set_engine
    from torch_ao_ext._explain import explain
    from torch_ao_ext._loader import library_path
    from torch_ao_ext._lower import lower
    from torch_ao_ext._profile import profile
    from torch_ao_ext._report import report
    from torch_ao_ext._saved.load import load_quantized
    from torch_ao_ext._saved.save import save_quantized

__all__ = [
    "__version__",
    "compare",
    "explain",
    "library_path",
    "load_quantized",
    "lower",
    "nn",
    "ns",
    "ops",
    "prepack",
    "profile",
    "pruning",
    "quantization",
    "repack",
    "report",
    "save_quantized",
    "set_deterministic",
    "set_engine",
    "suggest_skip",
]

_SUBMODULES = ("nn", "ns", "pruning", "quantization", "info")
_LAZY = {
    "compare": "_compare",
    "suggest_skip": "_compare",
    "explain": "_explain",
    "report": "_report",
    "library_path": "_loader",
    "load_quantized": "_saved.load",
    "lower": "_lower",
    "save_quantized": "_saved.save",
    "prepack": "_engines",
    "profile": "_profile",
    "repack": "_engines",
    "set_deterministic": "_engines",
    "set_engine": "_engines",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
