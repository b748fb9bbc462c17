"""`python -m torch_ao_ext.info`: what this installation can do on this machine."""

import sys

import torch

import torch_ao_ext
from torch_ao_ext import _loader
from torch_ao_ext.ops import service

__all__ = ["main", "text"]


def _operators() -> list[str]:
    """Public operators, by overload."""
    names = torch._C._dispatch_get_all_op_names()
    own = (name.removeprefix("torch_ao::") for name in names if name.startswith("torch_ao::"))
    return sorted(name for name in own if not name.startswith("_"))


def text() -> str:
    """The report as text."""
    facts = service.info()
    operators = _operators()
    lines = [
        f"torch_ao_ext {torch_ao_ext.__version__}, torch {torch.__version__} "
        f"(built with {facts['torch_built']})",
        f"library: {_loader.library_path()}",
        f"cpu: {' '.join(facts['cpu_features'])}",
        f"instruction sets: best {facts['best_isa']}, cap {facts['isa_cap']} (TORCH_AO_EXT_MAX_ISA)",
        f"caches: L1 {facts['l1_bytes'] // 1024} KB, L2 {facts['l2_bytes'] // 1024} KB",
        f"threads: {torch.get_num_threads()}",
        f"forced engine: {facts['engine'] or 'none'}, deterministic: {facts['deterministic']}",
        "engines:",
    ]
    for engine in facts["engines"]:
        state = f"not usable: {engine['problem']}" if engine["problem"] else "usable"
        lines.append(f"  {engine['name']} {engine['version']}".rstrip() + f" - {state}")
    lines.append(f"operators ({len(operators)}):")
    lines += [f"  {name}" for name in operators]
    return "\n".join(lines)


def main() -> int:
    """Prints the text; 0 when operators and at least one engine are there."""
    print(text())
    engines = [e for e in service.info()["engines"] if not e["problem"]]
    return 0 if engines and _operators() else 1


if __name__ == "__main__":
    sys.exit(main())
