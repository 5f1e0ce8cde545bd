"""The smallest GPT-2 and BERT that tests of everything but numbers need."""

import numpy as np
import transformers

VOCABULARY = 40


def gpt2_config(**changes) -> transformers.GPT2Config:
    values = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    dropouts = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    return transformers.GPT2Config(**{**values, **dropouts, **changes})


def bert_config(**changes) -> transformers.BertConfig:
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return transformers.BertConfig(**{**values, **changes})


def token_ids(rows: int = 4, time: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(3, VOCABULARY, (rows, time)).astype("int32")
