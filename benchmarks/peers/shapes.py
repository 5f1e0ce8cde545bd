"""The sizes that are measured: GPT-2 124 M, BERT-base, LLaMA 110 M, and tiny ones for trying the scripts."""

GPT2 = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
BERT = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
LLAMA = {
    "vocab_size": 32000,
    "max_position_embeddings": 1024,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TINY_GPT2 = {"vocab_size": 503, "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4}
TINY_BERT = {
    "vocab_size": 503,
    "max_position_embeddings": 256,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TINY_LLAMA = {**LLAMA, "vocab_size": 503, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2}
TINY_LLAMA["num_attention_heads"] = 4


def gpt2(tiny: bool, dropout: float) -> dict:
    """Keyword arguments of GPT2Config; without an end token, so that generation always runs its full length."""
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return {**(TINY_GPT2 if tiny else GPT2), **drops, "bos_token_id": 0, "eos_token_id": None}


def bert(tiny: bool, dropout: float) -> dict:
    """Keyword arguments of BertConfig."""
    drops = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    return {**(TINY_BERT if tiny else BERT), **drops}


def llama(tiny: bool, dropout: float) -> dict:
    """Keyword arguments of LlamaConfig, tied; without an end token, as `gpt2`. There is dropout in attention alone."""
    return {
        **(TINY_LLAMA if tiny else LLAMA),
        "attention_dropout": dropout,
        "tie_word_embeddings": True,
        "eos_token_id": None,
    }
