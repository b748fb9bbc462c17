"""legacy.redirect_imports, each test in a process of its own."""

import subprocess
import sys
import textwrap

START = """
import warnings

warnings.simplefilter("error")
from torch_ao_ext.quantization import legacy

left = legacy.redirect_imports()
import torch
import torch_ao_ext
"""


def run(program):
    code = START + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_old_names_are_ours():
    run("""
    import torch.nn.quantized as old_nnq
    import torch.quantization as older
    import torch.ao.quantization as old
    from torch import quantization
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.nn.quantized.modules.conv import Conv2d
    from torch.ao.pruning import WeightNormSparsifier
    from torch.nn.intrinsic import ConvReLU2d
    import torch.ao.nn.intrinsic.qat as iqat

    assert old is older is quantization is torch.ao.quantization is torch_ao_ext.quantization
    assert old_nnq is torch.nn.quantized is torch.ao.nn.quantized is torch_ao_ext.nn.quantized
    assert Conv2d is torch_ao_ext.nn.quantized.Conv2d and iqat is torch_ao_ext.nn.intrinsic.qat
    assert WeightNormSparsifier is torch_ao_ext.pruning.WeightNormSparsifier
    assert ConvReLU2d is torch_ao_ext.nn.intrinsic.ConvReLU2d
    model = old.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    assert type(model[0]) is Linear and Linear.__module__.startswith("torch_ao_ext.")
    """)


def test_every_older_name_is_ours():
    """Modules of torch.quantization, torch.nn.quantized and so on, with what they took from torch.ao."""
    code = """
    import importlib
    import pkgutil
    import warnings

    warnings.simplefilter("ignore")
    parts = ("quantized", "intrinsic", "qat", "quantizable")
    roots = ["torch.quantization", *(f"torch.nn.{part}" for part in parts)]
    names = {}
    for root in roots:
        package = importlib.import_module(root)
        for found in [root, *(m.name for m in pkgutil.walk_packages(package.__path__, root + "."))]:
            known = vars(importlib.import_module(found)).items()
            names[found] = [
                key for key, value in known
                if key[0] != "_" and str(getattr(value, "__module__", "")).startswith("torch.ao.")
            ]
    assert len(names) > 60
    from torch_ao_ext.quantization import legacy

    legacy.redirect_imports()
    wrong = set()
    for found, keys in names.items():
        module = importlib.import_module(found)
        parent, _, last = found.rpartition(".")
        assert getattr(importlib.import_module(parent), last) is not None, found
        for key in keys:
            home = str(getattr(getattr(module, key, None), "__module__", "torch.ao"))
            if home.startswith("torch.ao"):
                wrong.add(f"{found}.{key}")
    print(*sorted(wrong), sep="\\n")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    left = [name for name in done.stdout.split() if not name.startswith("torch.quantization.fx._equalize.")]
    assert not left


def test_deleted_names_are_back():
    run("""
    from torch.ao.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch.ao.quantization.quantizer import x86_inductor_quantizer as x86
    from torch.ao.quantization.pt2e import move_exported_model_to_eval

    x = torch.randn(3, 8)
    config = x86.get_default_x86_inductor_quantization_config()
    quantizer = x86.X86InductorQuantizer().set_global(config)
    graph = torch.export.export(torch.nn.Linear(8, 4).eval(), (x,)).module()
    prepared = prepare_pt2e(graph, quantizer)
    prepared(x)
    assert convert_pt2e(prepared)(x).shape == (3, 4)
    """)


def test_torch_goes_on():
    run("""
    warnings.simplefilter("ignore")
    x = torch.randn(3, 8)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    # The decompositions of torch's compiler import a module of torch.ao.
    import torch._inductor.decomposition
    import torch._inductor.lowering

    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), model(x))
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
    """)


def test_what_stays_is_named():
    run("""
    import sys
    import pytest

    assert "torch.ao.quantization.fx._lower_to_native_backend" in left
    assert "torch.ao.ns._numeric_suite" not in left
    assert not [name for name in left if sys.modules[name].__name__.startswith("torch_ao_ext")]
    moved = [name for name in sys.modules if name.startswith("torch.ao.") and name not in left]
    assert len(moved) > 100
    assert all(sys.modules[name].__name__.startswith("torch_ao_ext.") for name in moved)
    assert legacy.redirect_imports() == left
    with pytest.raises(ModuleNotFoundError):
        import torch.ao.quantization.nothing
    with pytest.raises(ImportError):
        from torch.ao.quantization.fx.utils import no_such_name
    """)


def test_nothing_is_loaded_twice():
    run("""
    import sys

    legacy.redirect_imports()
    files = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and "torch_ao_ext" in path:
            files.setdefault(path, set()).add(id(module))
    assert files and not [path for path, ids in files.items() if len(ids) > 1]
    """)
