"""CTranslate2's int8 encoder, for BERT models; what ran is the compute type that it says."""

import json

import numpy
import torch

from benchmarks.peers.case import Built


def encoder(case):
    """Converts the transformers model `bert` of the workload."""
    from ctranslate2.converters import TransformersConverter

    bert = case.model.bert
    bert.config.position_embedding_type = "absolute"  # the only kind left in transformers; the converter asks
    source, file = case.folder / "bert", case.folder / "ctranslate2"
    bert.save_pretrained(source)
    _tokenizer(source, bert.config.vocab_size)
    TransformersConverter(str(source)).convert(str(file), quantization="int8", force=True)
    model = _open(file, case.threads)
    if not model.compute_type.startswith("int8"):
        raise RuntimeError(f"no int8 peer: it runs {model.compute_type}")
    ran = f"compute type {model.compute_type}"
    return Built(_call(model), ran, file, "ctranslate2")


def _tokenizer(folder, size):
    """The converter wants one; ids go in, so that its words do not matter."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"w{i}" for i in range(size - len(special))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def _open(file, threads):
    import ctranslate2

    return ctranslate2.Encoder(
        str(file), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
    )


def _call(model):
    def call(ids, mask):
        hidden = model.forward_batch(ids.tolist()).last_hidden_state  # every mask here is full
        return torch.from_numpy(numpy.array(hidden))

    return call


def load(file, threads):
    """For a fresh process."""
    return _call(_open(file, threads))
