"""LLaMA 1 to 3: pre-norm decoder with rotary positions, RMS norms and a gated feed-forward (Touvron et al. 2023)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import decoder_heads
from tfheads.layers import (
    Attention,
    GatedFeedForward,
    PreNormBlock,
    RMSNorm,
    Stack,
    TextEmbeddings,
    View,
    rotary_positions,
)
from tfheads.registry import family


@family("llama")
class Llama(Backbone):
    """LLaMA's decoder; reference: `transformers.LlamaModel`."""

    class_prefix = "Llama"
    checkpoint_prefix = "model"
    checkpoint_prefixes = {"question-answering": "transformer"}
    inert = {
        "max_position_embeddings": "rotary positions have no end; some of their types read it",
        "pretraining_tp": "how the layers were spread when they were trained",
    }
    heads = decoder_heads(token_classifier="score")
    reference = "Touvron et al. 2023, transformers.LlamaModel"

    @staticmethod
    def make_embeddings(config):
        return TextEmbeddings(config.vocab_size, config.hidden_size)

    @staticmethod
    def make_stack(config):
        norm = partial(RMSNorm, config.hidden_size, config.rms_norm_eps)
        if config.rope_parameters.get("partial_rotary_factor") not in (None, 1.0):
            raise ValueError(f"partial_rotary_factor must be 1 for LLaMA, got {config.rope_parameters}")

        def block():
            attention = Attention(
                config.hidden_size,
                config.num_attention_heads,
                num_key_value_heads=config.num_key_value_heads,
                head_dim=config.head_dim,
                use_bias=config.attention_bias,
                dropout=config.attention_dropout,
            )
            feed_forward = GatedFeedForward(
                config.hidden_size, config.intermediate_size, config.hidden_act, use_bias=config.mlp_bias
            )
            return PreNormBlock(attention, feed_forward, attention_norm=norm(), feed_forward_norm=norm())

        rotary = rotary_positions(config.rope_parameters, config.head_dim, config.max_position_embeddings)
        return Stack(
            [block() for _ in range(config.num_hidden_layers)], View(causal=True, rotary=rotary), final_norm=norm()
        )

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "layers.{i}."
        return Table(
            backbone={
                "embeddings.token": "embed_tokens",
                block + "attention.{query,key,value,output_dense}": theirs + "self_attn.{q_proj,k_proj,v_proj,o_proj}",
                block + "{attention,feed_forward}_norm": theirs + "{input,post_attention}_layernorm",
                block + "feed_forward.{gate,up,down}": theirs + "mlp.{gate,up,down}_proj",
                "stack.final_norm": "norm",
            },
            aliases=tied_output(config, "{base}embed_tokens.weight"),
            ignored=(r"rotary_emb\.inv_freq$",),
        )
