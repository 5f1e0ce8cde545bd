"""The models that are measured: their classes, real sizes, and tiny ones for trying the scripts."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """A model of random weights that every peer can build.

    Attributes:
        model, config: names of transformers' classes; tfheads has the same.
        sizes: of the config.
        tiny: what differs in the tiny model.
        dropouts: the keys of all dropout rates.
        fixed: further keys; no end token, so that generation always runs its full length.
    """

    model: str
    config: str
    sizes: dict
    tiny: dict
    dropouts: tuple[str, ...]
    fixed: dict = field(default_factory=dict)

    def arguments(self, tiny: bool, dropout: float) -> dict:
        """Keyword arguments of the config."""
        sizes = {**self.sizes, **(self.tiny if tiny else {})}
        return {**sizes, **dict.fromkeys(self.dropouts, dropout), **self.fixed}


BERT_SIZES = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TINY_BERT_SIZES = {
    "vocab_size": 503,
    "max_position_embeddings": 256,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

SHAPES = {
    "gpt2": Shape(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
        {"vocab_size": 503, "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4},
        ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        {"bos_token_id": 0, "eos_token_id": None},
    ),
    "bert": Shape(
        "BertForMaskedLM",
        "BertConfig",
        BERT_SIZES,
        TINY_BERT_SIZES,
        ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    ),
    "distilbert": Shape(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "dim": 768,
            "hidden_dim": 3072,
            "n_layers": 6,
            "n_heads": 12,
        },
        {"vocab_size": 503, "max_position_embeddings": 256, "dim": 64, "hidden_dim": 256, "n_layers": 2, "n_heads": 4},
        ("dropout", "attention_dropout"),
    ),
    "llama": Shape(
        "LlamaForCausalLM",
        "LlamaConfig",
        {**BERT_SIZES, "vocab_size": 32000, "max_position_embeddings": 1024, "intermediate_size": 2048},
        {**TINY_BERT_SIZES, "intermediate_size": 172},
        ("attention_dropout",),
        {"tie_word_embeddings": True, "eos_token_id": None},
    ),
    "t5": Shape(
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
        {"vocab_size": 503, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4},
        ("dropout_rate",),
        {"decoder_start_token_id": 0, "eos_token_id": None},
    ),
    "bart": Shape(
        "BartForConditionalGeneration",
        "BartConfig",
        {
            "vocab_size": 50265,
            "max_position_embeddings": 1024,
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
        {
            "vocab_size": 503,
            "max_position_embeddings": 256,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "decoder_ffn_dim": 256,
        },
        ("dropout", "attention_dropout", "activation_dropout"),
        {"eos_token_id": None, "forced_eos_token_id": None, "decoder_start_token_id": 2},
    ),
}
ENCODERS = ("bert", "distilbert")
ENCODER_DECODERS = ("t5", "bart")
