"""Peers, each optional: what is missing is listed with the reason, never skipped silently.

torch.ao is imported here and in no file of the product.
"""

import contextlib
import io
import logging
import warnings

import torch
from torch import nn

TORCH_AO_ENGINES = ("x86", "onednn")


class Missing:
    """Names of peers (or of ours) that could not run, with the reason."""

    def __init__(self):
        self.reasons = {}

    @contextlib.contextmanager
    def noting(self, name):
        """Run a set-up step; a failure becomes a reason instead of an exception."""
        try:
            yield
        except Exception as error:
            # OpenVINO puts the places in its sources before the reason.
            lines = [t for t in str(error).splitlines() if t.strip() and not t.startswith("Exception from")]
            self.reasons[name] = f"{type(error).__name__}: {lines[0].strip() if lines else ''}"[:300]

    def as_dict(self):
        return dict(self.reasons)


def hush():
    """No lines of loggers on what is not installed."""
    for name in ("torchao", "torch.onnx", "torch.utils._pytree", "nncf"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def quiet():
    """Without the progress bars and warnings of exporters and quantizers; what fails raises."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quantized_engine(name):
    """torch.ao reads the engine when it packs a weight; the packed weight keeps it."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def torch_ao_dynamic(model, engine, kinds=(nn.Linear,), per_channel=False):
    """torch.ao's quantize_dynamic of these types, int8, packed for `engine`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        spec = dict.fromkeys(kinds, per_channel_dynamic_qconfig) if per_channel else set(kinds)
        with quantized_engine(engine):
            return quantize_dynamic(model, spec, dtype=torch.qint8)


def torch_ao_weight(linear, engine):
    """The packed weight of one torch.ao dynamic Linear (op-level comparisons)."""
    module = torch_ao_dynamic(nn.Sequential(linear), engine)[0]
    return module._packed_params._packed_params


def ours():
    """The product, or ImportError with its own text."""
    import torch_ao_ext

    return torch_ao_ext
