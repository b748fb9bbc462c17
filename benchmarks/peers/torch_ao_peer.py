"""torch.ao: dynamic int8 and FX graph mode on x86 and onednn; what ran is the types of modules."""

import copy
import warnings
from collections import Counter

from torch import nn

from benchmarks.harness import peers
from benchmarks.peers.case import Built, counted, on_integers

FLOAT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)


def executed(model):
    """(int8 layers, float layers with weights) by type."""
    integer, rest = Counter(), Counter()
    for module in model.modules():
        kind = type(module)
        layers = module.num_layers if hasattr(module, "num_layers") else 1
        if kind.__module__.startswith("torch.ao.nn") and "quantized" in kind.__module__:
            if hasattr(module, "_packed_params") or hasattr(module, "_all_weight_values"):
                integer[f"quantized {kind.__name__}"] += layers
        elif isinstance(module, FLOAT):
            rest[f"float {kind.__name__}"] += layers
    integer.pop("quantized LinearPackedParams", None)
    return integer, rest


def _built(case, model, engine):
    integer, rest = executed(model)
    ran = on_integers(integer.total(), rest.total(), counted(integer + rest))
    traced, file = case.traced(model, f"torch_ao_{engine}")
    return Built(traced, ran, file, "torchscript")


def dynamic(engine):
    """quantize_dynamic of linear and recurrent layers and bags, traced and frozen."""

    def build(case):
        with warnings.catch_warnings(), peers.quantized_engine(engine):
            warnings.simplefilter("ignore")
            from torch.ao import quantization as tq

            rows, layers = tq.float_qparams_weight_only_qconfig, tq.default_dynamic_qconfig
            kinds = {nn.EmbeddingBag: rows, nn.Linear: layers, nn.LSTM: layers, nn.GRU: layers}
            model = tq.quantize_dynamic(case.model, kinds)
        return _built(case, model, f"dynamic_{engine}")

    return build


def fx(engine):
    """prepare_fx and convert_fx with the engine's default mapping, traced and frozen."""

    def build(case):
        with warnings.catch_warnings(), peers.quantized_engine(engine):
            warnings.simplefilter("ignore")
            from torch.ao.quantization import get_default_qconfig_mapping
            from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

            model = copy.deepcopy(case.model)  # it leaves qconfigs on the modules that it is given
            prepared = prepare_fx(model, get_default_qconfig_mapping(engine), case.inputs)
            for inputs in case.calibration():
                prepared(*inputs)
            return _built(case, convert_fx(prepared), f"fx_{engine}")

    return build
