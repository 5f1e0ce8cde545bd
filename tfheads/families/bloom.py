"""BLOOM: pre-norm decoder that knows positions by biases on the scores alone, ALiBi (Le Scao et al. 2022)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import FusedByHeadLinear
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import decoder_heads
from tfheads.layers import (
    Attention,
    FeedForward,
    LayerNorm,
    LinearPositionBias,
    NormedResidualBlock,
    PreNormBlock,
    Stack,
    TextEmbeddings,
    View,
)
from tfheads.layers.positions import counted
from tfheads.registry import family


@family("bloom")
class Bloom(Backbone):
    """BLOOM's decoder; reference: `transformers.BloomModel`."""

    class_prefix = "Bloom"
    checkpoint_prefix = "transformer"
    input_names = ("input_ids", "attention_mask", "inputs_embeds")
    heads = decoder_heads()
    reference = "Le Scao et al. 2022, transformers.BloomModel"

    @staticmethod
    def make_embeddings(config):
        norm = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        return TextEmbeddings(config.vocab_size, config.hidden_size, norm=norm)

    @staticmethod
    def make_stack(config):
        ranks, exact = config.pretraining_tp, config.slow_but_exact
        if exact and ranks > 1:
            raise ValueError("slow_but_exact must be False with pretraining_tp above 1, got True: it leaves out biases")
        norm = partial(LayerNorm, config.hidden_size, config.layer_norm_epsilon)
        wiring = NormedResidualBlock if config.apply_residual_connection_post_layernorm else PreNormBlock

        def block():
            return wiring(
                Attention(config.hidden_size, config.n_head, dropout=config.attention_dropout),
                FeedForward(config.hidden_size, 4 * config.hidden_size, "gelu_new"),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                dropout=config.hidden_dropout,
            )

        return Stack(
            [block() for _ in range(config.n_layer)],
            View(causal=True, position_bias=LinearPositionBias(config.n_head)),
            final_norm=norm(),
        )

    def position_ids(self, inputs, length):
        real = inputs.get("attention_mask")
        return super().position_ids(inputs, length) if real is None else counted(real)

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "h.{i}."
        return Table(
            backbone={
                "embeddings.token": "word_embeddings",
                "embeddings.norm": "word_embeddings_layernorm",
                block + "attention": FusedByHeadLinear(theirs + "self_attention.query_key_value"),
                block + "attention.output_dense": theirs + "self_attention.dense",
                block + "{attention,feed_forward}_norm": theirs + "{input,post_attention}_layernorm",
                block + "feed_forward.{up,down}": theirs + "mlp.{dense_h_to_4h,dense_4h_to_h}",
                "stack.final_norm": "ln_f",
            },
            aliases=tied_output(config, "{base}word_embeddings.weight"),
        )
