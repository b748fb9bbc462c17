"""python -m torch_ao_ext.codemod."""

import ast

import pytest

from torch_ao_ext.codemod import main, rewrite

CASES = {
    "import": (
        "import torch\nimport torch.ao.quantization\n",
        "import torch\nimport torch_ao_ext.quantization\n",
    ),
    "import binds torch": (
        "import torch.quantization\nx = torch.randn(2)\n",
        "import torch, torch_ao_ext.quantization\nx = torch.randn(2)\n",
    ),
    "alias": ("import torch.ao.nn.quantized as nnq\n", "import torch_ao_ext.nn.quantized as nnq\n"),
    "from": (
        "from torch.ao.quantization.quantize_fx import prepare_fx as p\n",
        "from torch_ao_ext.quantization.quantize_fx import prepare_fx as p\n",
    ),
    "deleted by torch": (
        "from torch.ao.quantization.quantize_pt2e import prepare_pt2e\n",
        "from torch_ao_ext.quantization.quantize_pt2e import prepare_pt2e\n",
    ),
    "moved": (
        "import torch.quantization._numeric_suite as ns\n"
        "from torch.quantization.fx.quantization_patterns import QuantizeHandler\n"
        "from torch.nn.quantized._reference.modules.conv import Conv2d\n",
        "import torch_ao_ext.ns._numeric_suite as ns\n"
        "from torch_ao_ext.quantization.fx.quantize_handler import QuantizeHandler\n"
        "from torch_ao_ext.nn.quantized.reference.modules.conv import Conv2d\n",
    ),
    "containers of packed weights, prepare's steps": (
        "from torch.nn.quantized.modules.linear import LinearPackedParams\n"
        "from torch.ao.nn.quantized.modules.embedding_ops import EmbeddingPackedParams\n"
        "from torch.nn.quantized.dynamic.modules.rnn import PackedParameter, pack_weight_bias\n"
        "from torch.ao.nn.sparse.quantized import LinearPackedParams as Sparse\n"
        "from torch.ao.quantization.fx.utils import get_linear_prepack_op_for_dtype\n"
        "from torch.ao.quantization.fx.utils import get_qconv_prepack_op\n"
        "from torch.ao.quantization.fx.prepare import insert_observers_for_model\n"
        "from torch.ao.quantization.fx.prepare import propagate_dtypes_for_known_nodes\n",
        "from torch_ao_ext.nn.quantized.modules.linear import LinearPackedParams\n"
        "from torch_ao_ext.nn.quantized.modules.embedding_ops import EmbeddingPackedParams\n"
        "from torch_ao_ext.nn.quantized.dynamic.modules.rnn import PackedParameter, pack_weight_bias\n"
        "from torch_ao_ext.nn.sparse.quantized import LinearPackedParams as Sparse\n"
        "from torch_ao_ext.quantization.fx.utils import get_linear_prepack_op_for_dtype\n"
        "from torch_ao_ext.quantization.fx.utils import get_qconv_prepack_op\n"
        "from torch_ao_ext.quantization.fx.prepare import insert_observers_for_model\n"
        "from torch_ao_ext.quantization.fx.prepare import propagate_dtypes_for_known_nodes\n",
    ),
    "lines and comments stay": (
        "from torch.ao.quantization import (  # why\n    QuantStub,  # in\n    DeQuantStub,\n)\n",
        "from torch_ao_ext.quantization import (  # why\n    QuantStub,  # in\n    DeQuantStub,\n)\n",
    ),
    "split": (
        "if 1:\n    from torch import nn, quantization as tq\n",
        "if 1:\n    from torch import nn\n    from torch_ao_ext import quantization as tq\n",
    ),
    "split in one line": (
        "x = 1; from torch.nn import Linear, quantized\n",
        "x = 1; from torch.nn import Linear; from torch_ao_ext.nn import quantized\n",
    ),
    "package": ("from torch.ao import nn, pruning\n", "from torch_ao_ext import nn, pruning\n"),
    "star": ("from torch.ao.quantization import *\n", "from torch_ao_ext.quantization import *\n"),
    "attributes": (
        "import torch\né = torch.quantization.prepare(m); b = torch.nn.quantized.FloatFunctional().add\n",
        "import torch\nimport torch_ao_ext.nn.quantized\nimport torch_ao_ext.quantization\n"
        "é = torch_ao_ext.quantization.prepare(m); b = torch_ao_ext.nn.quantized.FloatFunctional().add\n",
    ),
    "windows": (
        "import torch\r\nx = torch.ao.quantization.default_qconfig\r\n",
        "import torch\r\nimport torch_ao_ext.quantization\r\n"
        "x = torch_ao_ext.quantization.default_qconfig\r\n",
    ),
    "names bound to torch": (
        "import torch as T\nx = T.quantization.prepare(m); y = T.ao.nn.quantized.Linear; T.nn.Linear\n",
        "import torch as T\nimport torch_ao_ext.nn.quantized\nimport torch_ao_ext.quantization\n"
        "x = torch_ao_ext.quantization.prepare(m); y = torch_ao_ext.nn.quantized.Linear; T.nn.Linear\n",
    ),
    "names bound to torch.nn": (
        "import torch.nn as nn\nx = nn.quantized.FloatFunctional(), nn.qat.Linear, nn.Linear\n",
        "import torch.nn as nn\nimport torch_ao_ext.nn.qat\nimport torch_ao_ext.nn.quantized\n"
        "x = torch_ao_ext.nn.quantized.FloatFunctional(), torch_ao_ext.nn.qat.Linear, nn.Linear\n",
    ),
    "names from torch": (
        "from torch import ao, nn\nclass A(nn.quantized.FloatFunctional):\n    x = ao.quantization.prepare\n",
        "from torch import ao, nn\nimport torch_ao_ext.nn.quantized\nimport torch_ao_ext.quantization\n"
        "class A(torch_ao_ext.nn.quantized.FloatFunctional):\n    x = torch_ao_ext.quantization.prepare\n",
    ),
    "torch.ao by another name": (
        "import torch.ao as o\n@o.quantization.prepare\ndef f(): pass\n",
        "import torch.ao as o\nimport torch_ao_ext.quantization\n"
        "@torch_ao_ext.quantization.prepare\ndef f(): pass\n",
    ),
    "getattr": (
        'import torch\nx = getattr(torch, "quantization"), getattr(torch.ao, "nn").quantized.Linear\n',
        "import torch\nimport torch_ao_ext.nn.quantized\nimport torch_ao_ext.quantization\n"
        "x = torch_ao_ext.quantization, torch_ao_ext.nn.quantized.Linear\n",
    ),
    "names of modules": (
        '@mock.patch("torch.ao.quantization.quantize.prepare", a)\n'
        "def f(): return importlib.import_module('torch.quantization.quantize_fx')\n",
        '@mock.patch("torch_ao_ext.quantization.quantize.prepare", a)\n'
        "def f(): return importlib.import_module('torch_ao_ext.quantization.quantize_fx')\n",
    ),
    "parts of packages": (
        "import torch\ntorch.ao.quantization.quantize_fx.prepare_fx(m, a, b)\n",
        "import torch\nimport torch_ao_ext.quantization.quantize_fx\n"
        "torch_ao_ext.quantization.quantize_fx.prepare_fx(m, a, b)\n",
    ),
    "several in one import": (
        "import torch, torch.ao.nn.quantized.dynamic as d, os\nfrom torch.ao.nn import quantized as q, qat\n",
        "import torch, torch_ao_ext.nn.quantized.dynamic as d, os\n"
        "from torch_ao_ext.nn import quantized as q, qat\n",
    ),
    "inside a function": (
        "def f():\n    import torch.quantization\n    return torch.quantization.prepare\n",
        "def f():\n    import torch, torch_ao_ext.quantization\n"
        "    return torch_ao_ext.quantization.prepare\n",
    ),
    "old and new place": (
        "try:\n    from torch.ao.quantization import prepare\nexcept ImportError:\n"
        "    from torch.quantization import prepare\n",
        "try:\n    from torch_ao_ext.quantization import prepare\nexcept ImportError:\n"
        "    from torch_ao_ext.quantization import prepare\n",
    ),
    "continued lines": (
        "from torch.ao.quantization import prepare, \\\n    convert\nx = f'{convert}'\n",
        "from torch_ao_ext.quantization import prepare, \\\n    convert\nx = f'{convert}'\n",
    ),
    "others stay": (
        'from torch import nn\nfrom . import quantization\n"torch.ao.quantization"\n'
        'torch.backends.quantized.engine = "x86"  # torch.quantization\nself.torch.quantization.prepare\n',
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rewritten(name):
    source, expected = CASES[name]
    new, notes = rewrite(source)
    assert new == (source if expected is None else expected)
    assert notes == []
    ast.parse(new)
    assert rewrite(new) == (new, [])


def test_what_stays_is_listed():
    source = (
        "import torch.ao.quantization.fx._lower_to_native_backend\n"
        "from torch.ao.quantization.fx.utils import _is_custom_module_lstm, return_arg_list\n"
        "import torch\n"
        "x = torch.ao.quantization.fx.prepare._swap_custom_module_to_observed\n"
    )
    new, notes = rewrite(source)
    assert new.splitlines()[1:3] == [
        "from torch.ao.quantization.fx.utils import _is_custom_module_lstm",
        "from torch_ao_ext.quantization.fx.utils import return_arg_list",
    ]
    assert [line for line, _ in notes] == [1, 2, 4]
    assert notes[1][1] == "torch.ao.quantization.fx.utils._is_custom_module_lstm has no counterpart"


def test_what_is_written_in_strings_or_needs_quantized_tensors_is_listed():
    source = (
        "import sys, torch\n"
        "x = sys.modules['torch.ao.quantization']\n"
        "def f(q: 'torch.ao.quantization.QConfig'): return torch.ops.quantized.linear(q)\n"
        "y = torch.quantize_per_tensor(x, 1.0, 0, torch.quint8)\n"
        'patch("torch.ao.quantization.fx.utils._is_custom_module_lstm")\n'
        "z = getattr(torch, 'quantization', None)\n"
    )
    new, notes = rewrite(source)
    assert new == source
    assert notes == [
        (2, "the string 'torch.ao.quantization' stays"),
        (3, "the string 'torch.ao.quantization.QConfig' stays"),
        (3, "torch.ops.quantized.linear has no counterpart"),
        (4, "torch.quantize_per_tensor has no counterpart"),
        (5, "torch.ao.quantization.fx.utils._is_custom_module_lstm has no counterpart"),
        (6, "getattr(torch, 'quantization', None) stays"),
    ]


def test_import_to_add_by_hand():
    new, notes = rewrite("from x import torch\ny = torch.quantization.prepare\n")
    assert new.endswith("y = torch_ao_ext.quantization.prepare\n")
    assert notes == [(1, "add: import torch_ao_ext.quantization")]


def test_rewritten_program_runs():
    source = (
        "import torch\n"
        "from torch.ao.quantization import quantize_dynamic\n"
        "model = quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 2)))\n"
        "kind = torch.ao.nn.quantized.dynamic.Linear\n"
    )
    space = {}
    exec(rewrite(source)[0], space)
    assert type(space["model"][0]) is space["kind"]
    assert space["kind"].__module__.startswith("torch_ao_ext.")


def test_command(tmp_path, capsys):
    (tmp_path / "inner").mkdir()
    good, other, broken = tmp_path / "inner" / "a.py", tmp_path / "b.py", tmp_path / "c.py"
    good.write_bytes(b"import torch.quantization as q\r\n")
    internal = "from torch.ao.quantization.fx.utils import _is_custom_module_lstm\n"
    other.write_text("import torch.ao.ns\n" + internal)
    assert main(["--check", str(tmp_path)]) == 1
    assert good.read_bytes() == b"import torch.quantization as q\r\n"
    assert main([str(tmp_path)]) == 0
    assert good.read_bytes() == b"import torch_ao_ext.quantization as q\r\n"
    note = "b.py:2: torch.ao.quantization.fx.utils._is_custom_module_lstm has no counterpart"
    assert note in capsys.readouterr().out
    broken.write_text("def :\n")
    assert main([str(broken), str(tmp_path / "none.py")]) == 1
    error = capsys.readouterr().err
    assert "c.py: not rewritten" in error and "none.py: not rewritten" in error
