"""GPT-NeoX, Pythia: decoder with rotary positions whose branches run in parallel (Black et al. 2022)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import FusedByHeadLinear
from tfheads.checkpoints.tables import Alias, Table
from tfheads.heads import decoder_heads
from tfheads.layers import (
    Attention,
    FeedForward,
    LayerNorm,
    ParallelBlock,
    PreNormBlock,
    Stack,
    TextEmbeddings,
    View,
    rotary_positions,
)
from tfheads.registry import family


@family("gpt_neox")
class GPTNeoX(Backbone):
    """GPT-NeoX's decoder, sequential without `use_parallel_residual`; reference: `transformers.GPTNeoXModel`."""

    class_prefix = "GPTNeoX"
    checkpoint_prefix = "gpt_neox"
    inert = {
        "max_position_embeddings": "rotary positions have no end; some of their types read it",
        "classifier_dropout": "read by the classification heads",
        "is_decoder": "it always is one",
    }
    heads = decoder_heads(language_model_names={"decoder": "embed_out"})
    reference = "Black et al. 2022, transformers.GPTNeoXModel"

    @staticmethod
    def make_embeddings(config):
        return TextEmbeddings(config.vocab_size, config.hidden_size, dropout=config.hidden_dropout)

    @staticmethod
    def make_stack(config):
        norm = partial(LayerNorm, config.hidden_size, config.layer_norm_eps)
        wiring = ParallelBlock if config.use_parallel_residual else PreNormBlock

        def block():
            return wiring(
                Attention(
                    config.hidden_size,
                    config.num_attention_heads,
                    use_bias=config.attention_bias,
                    dropout=config.attention_dropout,
                ),
                FeedForward(config.hidden_size, config.intermediate_size, config.hidden_act),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                dropout=config.hidden_dropout,
            )

        width = config.hidden_size // config.num_attention_heads
        rotated = int(width * config.rope_parameters.get("partial_rotary_factor", 1.0))
        return Stack(
            [block() for _ in range(config.num_hidden_layers)],
            View(causal=True, rotary=rotary_positions(config.rope_parameters, rotated, config.max_position_embeddings)),
            final_norm=norm(),
        )

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "layers.{i}."
        output = "{base}embed_in.weight" if config.tie_word_embeddings else "embed_out.weight"
        return Table(
            backbone={
                "embeddings.token": "embed_in",
                block + "attention": FusedByHeadLinear(theirs + "attention.query_key_value"),
                block + "attention.output_dense": theirs + "attention.dense",
                block + "{attention,feed_forward}_norm": theirs + "{input,post_attention}_layernorm",
                block + "feed_forward.{up,down}": theirs + "mlp.{dense_h_to_4h,dense_4h_to_h}",
                "stack.final_norm": "final_layer_norm",
            },
            aliases=tuple(Alias(name, output) for name in ("lm_head.weight", "embed_out.weight") if name != output),
            ignored=(r"attention\.(bias|masked_bias)$", r"rotary_emb\.inv_freq$"),
        )
