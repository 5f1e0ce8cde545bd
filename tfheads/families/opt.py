"""OPT: decoder with learned positions that are counted over real tokens, pre- or post-norm (Zhang et al. 2022)."""

from functools import partial

from keras import ops

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import decoder_heads
from tfheads.layers import (
    Attention,
    FeedForward,
    LayerNorm,
    PlainLayerNorm,
    PostNormBlock,
    PreNormBlock,
    Stack,
    TextEmbeddings,
    View,
    part,
)
from tfheads.layers.part import embedding
from tfheads.layers.positions import counted
from tfheads.layers.projections import dense
from tfheads.registry import family

OFFSET = 2  # rows of the position table before that of a row's first token; padding has the last of them
EPSILON = 1e-5  # the config has none


@part
class ProjectedTokenEmbeddings(TextEmbeddings):
    """Token vectors of their own width, projected to that of the positions before these are added.

    Args:
        vocab_size: rows of the token table.
        hidden_size: width of the result.
        token_size: width of the token table.
        num_positions: rows of the position table.
        position_offset: added to each position before the look-up.
    """

    def __init__(self, vocab_size, hidden_size, token_size, num_positions, position_offset, **kwargs):
        super().__init__(vocab_size, token_size, **kwargs)
        self.hidden_size, self.token_size = hidden_size, token_size
        self.num_positions, self.position_offset = num_positions, position_offset
        self.position = embedding(num_positions, hidden_size, self.dtype_policy)
        self.project_in = dense(token_size, hidden_size, use_bias=False, dtype=self.dtype_policy)

    def call(self, inputs, positions, training=None):
        x = self.token(inputs["input_ids"]) if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
        return self.project_in(ops.cast(x, self.compute_dtype)) + self.position(positions + self.position_offset)


@family("opt")
class OPT(Backbone):
    """OPT's decoder, also in the layout of the 350 million one; reference: `transformers.OPTModel`."""

    class_prefix = "OPT"
    checkpoint_prefix = "model"
    inert = {"init_std": "read when weights are drawn"}
    heads = decoder_heads("word_embed_proj_dim")
    reference = "Zhang et al. 2022, transformers.OPTModel"

    @staticmethod
    def make_embeddings(config):
        rows = config.max_position_embeddings + OFFSET
        sizes = {"num_positions": rows, "position_offset": OFFSET}
        if config.word_embed_proj_dim == config.hidden_size:
            return TextEmbeddings(config.vocab_size, config.hidden_size, **sizes)
        return ProjectedTokenEmbeddings(config.vocab_size, config.hidden_size, config.word_embed_proj_dim, **sizes)

    @staticmethod
    def make_stack(config):
        if config.layerdrop:
            raise ValueError(f"layerdrop must be 0, training leaves out no layers, got {config.layerdrop}")
        norm = partial(LayerNorm, config.hidden_size) if config.layer_norm_elementwise_affine else PlainLayerNorm
        wiring = PreNormBlock if config.do_layer_norm_before else PostNormBlock
        last = not config._remove_final_layer_norm and config.do_layer_norm_before
        projected = config.word_embed_proj_dim != config.hidden_size

        def block():
            return wiring(
                Attention(
                    config.hidden_size,
                    config.num_attention_heads,
                    use_bias=config.enable_bias,
                    dropout=config.attention_dropout,
                ),
                FeedForward(
                    config.hidden_size, config.ffn_dim, config.activation_function, use_bias=config.enable_bias
                ),
                attention_norm=norm(epsilon=EPSILON),
                feed_forward_norm=norm(epsilon=EPSILON),
                dropout=config.dropout,
            )

        return Stack(
            [block() for _ in range(config.num_hidden_layers)],
            View(causal=True),
            final_norm=norm(epsilon=EPSILON) if last else None,
            final_projection=dense(config.hidden_size, config.word_embed_proj_dim, use_bias=False)
            if projected
            else None,
        )

    def initial_deviation(self, path):
        return self.config.init_std * self.initial_scale(path)

    def position_ids(self, inputs, length):
        real = inputs.get("attention_mask")
        return super().position_ids(inputs, length) if real is None else counted(real, padding=-1)

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "decoder.layers.{i}."
        return Table(
            backbone={
                "embeddings.{token,position}": "decoder.{embed_tokens,embed_positions}",
                "embeddings.project_in": "decoder.project_in",
                block + "attention.{query,key,value,output_dense}": theirs + "self_attn.{q,k,v,out}_proj",
                block + "{attention,feed_forward}_norm": theirs + "{self_attn,final}_layer_norm",
                block + "feed_forward.{up,down}": theirs + "{fc1,fc2}",
                "stack.{final_norm,final_projection}": "decoder.{final_layer_norm,project_out}",
            },
            aliases=tied_output(config, "{base}decoder.embed_tokens.weight"),
        )
