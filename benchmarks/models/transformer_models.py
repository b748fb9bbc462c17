"""Encoders as tensors -> tensor: MiniLM with trained weights; BERT-base, ViT-B/16, Whisper-tiny random."""

import torch
from torch import nn

from benchmarks.models import minilm_model

BERT_WORDS = 30522


class BertHidden(nn.Module):
    """(ids, mask) -> last hidden state."""

    def __init__(self, bert):
        super().__init__()
        bert.pooler = None  # its answer is not read: dead layers that some flows stumble over
        self.bert = bert

    def forward(self, ids, mask):
        return minilm_model.hidden(self.bert, ids, mask)


class Output(nn.Module):
    """A transformers model of one input, as tensor -> one field of its answer."""

    def __init__(self, model, field):
        super().__init__()
        self.model, self.field = model, field

    def forward(self, x):
        return getattr(self.model(x), self.field)


def minilm(attention):
    """The trained sentence encoder."""
    return BertHidden(minilm_model.load(attention))


def minilm_inputs(batch, tokens, seed):
    """Real text without padding; seeds above 0 give other windows of it."""
    if seed == 0:
        return minilm_model.inputs(batch, tokens)
    words = torch.cat([minilm_model.tokenize([p], 128)[0][0, 1:-1] for p in minilm_model.paragraphs()])
    starts = [(seed * 101 + i * tokens) % (len(words) - tokens) for i in range(batch)]
    ids = torch.stack([words[s : s + tokens] for s in starts])
    ids[:, 0], ids[:, -1] = 101, 102  # [CLS], [SEP]
    return ids, torch.ones_like(ids)


def bert_base(layers=12):
    """Layers of 768, random weights."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertHidden(BertModel(BertConfig(num_hidden_layers=layers, attn_implementation="sdpa")))


def bert_inputs(batch, tokens, seed):
    """Random words, nothing masked."""
    ids = torch.randint(1000, BERT_WORDS, (batch, tokens), generator=torch.Generator().manual_seed(seed))
    return ids, torch.ones_like(ids)


def vit_base():
    """ViT-B/16, random weights."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    model = ViTModel(ViTConfig(attn_implementation="sdpa"), add_pooling_layer=False)
    return Output(model, "last_hidden_state")


def whisper_encoder():
    """Whisper-tiny's encoder, random weights."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80,
        attn_implementation="sdpa",
    )  # fmt: skip
    return Output(WhisperEncoder(config), "last_hidden_state")


def mels(batch, seed):
    """30 s of log mel channels `[batch, 80, 3000]`, smooth over time."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 80, 3000, generator=g)
    return nn.functional.avg_pool1d(noise, 9, 1, 4) * 1.5
