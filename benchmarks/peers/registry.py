"""All candidates of the tables, and what a fresh process loads."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

FLOAT, TORCH, OTHER, OURS = "float", "torch int8", "other int8", "torch_ao_ext"


@dataclass(frozen=True)
class Candidate:
    """A way to run a workload.

    Args:
        name: in the tables.
        kind: FLOAT, TORCH (int8 inside PyTorch), OTHER (another engine's int8) or OURS.
        families: workload families that it is for; a family that it does not name has no cell.
        module: file in benchmarks/peers, imported when it is built.
        builder: function of that file; with `argument` it makes the builder.
        compiles: needs torch.compile, that is minutes.
        served: has a file that a fresh process loads.
    """

    name: str
    kind: str
    families: tuple
    module: str
    builder: str
    argument: str = ""
    compiles: bool = False
    served: bool = True

    def build(self, case) -> Callable:
        """case.Built; raises where it cannot be built or is not what its name says."""
        make = getattr(importlib.import_module(f"benchmarks.peers.{self.module}"), self.builder)
        return (make(self.argument) if self.argument else make)(case)


CNN, TRANSFORMER, BERT, RNN, BAGS = "cnn", "transformer", "bert", "rnn", "bags"
FRONTENDS = "frontends"  # our own ways to one int8 model, held against each other
ALL = (CNN, TRANSFORMER, RNN, BAGS)
DYNAMIC = (TRANSFORMER, RNN)
STATIC = (CNN, TRANSFORMER)
LINEAR, PT2E = (TRANSFORMER, BAGS), (*STATIC, BAGS)  # of torchao

CANDIDATES = (
    Candidate("fp32", FLOAT, (*ALL, FRONTENDS), "torch_peers", "float32"),
    Candidate("fp32 + compile", FLOAT, ALL, "torch_peers", "float32_compiled", compiles=True),
    Candidate("bf16 + compile", FLOAT, STATIC, "torch_peers", "bfloat16_compiled", compiles=True),
    Candidate("openvino f32", FLOAT, (*STATIC, RNN), "openvino_peer", "float32"),
    Candidate("openvino bf16", FLOAT, STATIC, "openvino_peer", "bfloat16"),
    Candidate("torch.ao dynamic x86", TORCH, (*DYNAMIC, BAGS), "torch_ao_peer", "dynamic", "x86"),
    Candidate("torch.ao dynamic onednn", TORCH, DYNAMIC, "torch_ao_peer", "dynamic", "onednn"),
    Candidate("torch.ao FX x86", TORCH, STATIC, "torch_ao_peer", "fx", "x86"),
    Candidate("torch.ao FX onednn", TORCH, STATIC, "torch_ao_peer", "fx", "onednn"),
    Candidate("torchao dynamic + compile", TORCH, LINEAR, "torchao_peer", "dynamic", compiles=True),
    Candidate("torchao int8 bags + compile", TORCH, (BAGS,), "torchao_peer", "int8_bags", compiles=True),
    Candidate("torchao pt2e + compile", TORCH, PT2E, "torchao_peer", "pt2e_compiled", compiles=True),
    Candidate("torchao pt2e lowered", TORCH, PT2E, "torchao_peer", "pt2e_lowered", served=False),
    Candidate("onnxruntime dynamic", OTHER, DYNAMIC, "onnxruntime_peer", "dynamic"),
    Candidate("onnxruntime QDQ", OTHER, STATIC, "onnxruntime_peer", "static"),
    Candidate("openvino QDQ", OTHER, STATIC, "openvino_peer", "static"),
    Candidate("openvino nncf", OTHER, STATIC, "openvino_peer", "nncf_quantized"),
    Candidate("executorch XNNPACK", OTHER, STATIC, "executorch_peer", "xnnpack"),
    Candidate("ctranslate2", OTHER, (BERT,), "ctranslate2_peer", "encoder"),
    Candidate("fbgemm TBE", OTHER, (BAGS,), "fbgemm_peer", "tables", served=False),
    Candidate("torch_ao_ext dynamic", OURS, (*DYNAMIC, BAGS), "own_peer", "dynamic", served=False),
    Candidate("torch_ao_ext dynamic traced", OURS, (*DYNAMIC, BAGS), "own_peer", "dynamic_traced"),
    Candidate("torch_ao_ext dynamic + compile", OURS, DYNAMIC, "own_peer", "dynamic_compiled", compiles=True),
    Candidate("torch_ao_ext pt2e dynamic", OURS, (TRANSFORMER,), "own_peer", "pt2e_dynamic", served=False),
    Candidate("torch_ao_ext pt2e rows", OURS, (TRANSFORMER,), "own_peer", "pt2e_rows", served=False),
    Candidate("torch_ao_ext pt2e", OURS, (*STATIC, FRONTENDS), "own_peer", "pt2e", served=False),
    Candidate("torch_ao_ext pt2e traced", OURS, (*STATIC, FRONTENDS), "own_peer", "pt2e_traced"),
    Candidate("torch_ao_ext pt2e xnnpack traced", OURS, (CNN,), "own_peer", "pt2e_xnnpack_traced"),
    Candidate("torch_ao_ext eager traced", OURS, (FRONTENDS,), "own_peer", "eager_traced"),
    Candidate("torch_ao_ext FX traced", OURS, (FRONTENDS,), "own_peer", "fx_traced"),
    Candidate("torch_ao_ext pt2e + compile", OURS, (FRONTENDS,), "own_peer", "pt2e_compiled", compiles=True),
)  # fmt: skip

# Built.loader -> (file in benchmarks/peers, function, keywords, library): how a process opens Built.file.
LOADERS = {
    "torchscript": ("torch_peers", "load_torchscript", {}, "torch"),
    "torch_ao_ext": ("own_peer", "load", {}, "torch_ao_ext"),
    "onnxruntime": ("onnxruntime_peer", "load", {}, "onnxruntime"),
    "openvino": ("openvino_peer", "load", {}, "openvino"),
    "openvino f32": ("openvino_peer", "load", {"precision": "f32"}, "openvino"),
    "openvino bf16": ("openvino_peer", "load", {"precision": "bf16"}, "openvino"),
    "executorch": ("executorch_peer", "load", {}, "executorch.runtime"),
    "ctranslate2": ("ctranslate2_peer", "load", {}, "ctranslate2"),
}


def loader(name):
    """The function (file, threads) -> call of a key of LOADERS; its library is imported."""
    module, function, keywords, library = LOADERS[name]
    importlib.import_module(library)
    load = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
    return functools.partial(load, **keywords)
