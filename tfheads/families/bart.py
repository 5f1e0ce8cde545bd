"""BART: the original Transformer with learned positions and normed embeddings (Lewis et al. 2019)."""

from functools import partial

from tfheads.backbones import EmbeddedStack, EncoderDecoder
from tfheads.checkpoints.rules import Offset
from tfheads.checkpoints.tables import Alias, Table
from tfheads.heads import OffsetLanguageModelHead, QuestionAnsweringHead, encoder_decoder_heads
from tfheads.layers import Attention, CrossAttention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.registry import family

OFFSET = 2  # the table of positions begins with two rows that are never read
OFFSET_LANGUAGE_MODEL = {"decoder": "lm_head"}, {"": Offset("final_logits_bias")}
INERT = {
    "init_std": "read when weights are drawn",
    "decoder_start_token_id": "read where labels are moved by one place",
    "forced_eos_token_id": "read by generation",
    "is_decoder": "a property of the task",
}
"""Keys that no part of BART or a relative reads."""


def embeddings(config, shared_token=None) -> TextEmbeddings:
    """Tokens and positions, normed."""
    return TextEmbeddings(
        config.vocab_size,
        config.d_model,
        num_positions=config.max_position_embeddings + OFFSET,
        position_offset=OFFSET,
        norm=LayerNorm(config.d_model),
        dropout=config.dropout,
        shared_token=shared_token,
        token_scale=config.d_model**0.5 if config.scale_embedding else 1.0,
    )


def stack(config, layers: int, heads: int, width: int, layerdrop: float, causal: bool) -> Stack:
    """The blocks of an encoder, or of a decoder that attends to one."""
    if layerdrop:
        raise ValueError(f"encoder_layerdrop and decoder_layerdrop must be 0.0: no layer is skipped, got {layerdrop}")
    norm = partial(LayerNorm, config.d_model)
    sizes = {"hidden_size": config.d_model, "num_heads": heads, "dropout": config.attention_dropout}

    def block():
        return PostNormBlock(
            Attention(**sizes),
            FeedForward(config.d_model, width, config.activation_function, dropout=config.activation_dropout),
            attention_norm=norm(),
            feed_forward_norm=norm(),
            cross_attention=CrossAttention(**sizes) if causal else None,
            cross_attention_norm=norm() if causal else None,
            dropout=config.dropout,
        )

    return Stack([block() for _ in range(layers)], View(causal=causal))


def encoder_stack(config) -> Stack:
    """The encoder's blocks."""
    sizes = config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim, config.encoder_layerdrop
    return stack(config, *sizes, causal=False)


def decoder_stack(config) -> Stack:
    """The decoder's blocks."""
    sizes = config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim, config.decoder_layerdrop
    return stack(config, *sizes, causal=True)


def rules(ours: str, theirs: str) -> dict:
    """The table of an encoder or a decoder, without its tokens."""
    block, layer = f"{ours}stack.blocks.{{i}}.", f"{theirs}layers.{{i}}."
    projections = "{query,key,value,output_dense}", "{q_proj,k_proj,v_proj,out_proj}"
    return {
        f"{ours}embeddings.{{position,norm}}": f"{theirs}{{embed_positions,layernorm_embedding}}",
        f"{block}attention.{projections[0]}": f"{layer}self_attn.{projections[1]}",
        f"{block}cross_attention.{projections[0]}": f"{layer}encoder_attn.{projections[1]}",
        f"{block}{{attention,cross_attention}}_norm": f"{layer}{{self_attn,encoder_attn}}_layer_norm",
        f"{block}feed_forward.{{up,down}}": f"{layer}{{fc1,fc2}}",
        f"{block}feed_forward_norm": f"{layer}final_layer_norm",
    }


def shared_table(tied: bool) -> tuple[Alias, ...]:
    """Second names of the token table, which encoder, decoder and output share or not."""
    shared, encoder = "{base}shared.weight", "{base}encoder.embed_tokens.weight"
    names = encoder, "{base}decoder.embed_tokens.weight", "lm_head.weight"
    return tuple(Alias(name, shared) for name in names) if tied else (Alias(shared, encoder, written=True),)


@family("bart")
class Bart(EncoderDecoder):
    """BART's encoder and decoder over one token table; reference: `transformers.BartModel`."""

    class_prefix = "Bart"
    checkpoint_prefix = "model"
    inert = INERT | {"classifier_dropout": "read by the classification head"}
    heads = encoder_decoder_heads(
        lambda config: OffsetLanguageModelHead(config.d_model, config.vocab_size, tied=config.tie_word_embeddings),
        OFFSET_LANGUAGE_MODEL,
        answers=lambda config: QuestionAnsweringHead(config.d_model),
    )
    reference = "Lewis et al. 2019, transformers.BartModel"

    @staticmethod
    def make_encoder(config):
        return EmbeddedStack(embeddings(config), encoder_stack(config), name="encoder")

    @staticmethod
    def make_decoder(config, encoder):
        shared = encoder.embeddings.token if config.tie_word_embeddings else None
        return EmbeddedStack(embeddings(config, shared), decoder_stack(config), name="decoder")

    def default_target(self, source):
        return super().default_target(source) if "input_ids" not in source else self.moved_right(source["input_ids"])

    def initial_deviation(self, path):
        return self.config.init_std

    @staticmethod
    def table(config):
        tied = config.tie_word_embeddings
        parts = ("encoder", "decoder")
        untied = {f"{part}.embeddings.token": f"{part}.embed_tokens" for part in parts}
        return Table(
            backbone={
                **({"encoder.embeddings.token": "shared"} if tied else untied),
                **rules("encoder.", "encoder."),
                **rules("decoder.", "decoder."),
            },
            aliases=shared_table(tied),
            ignored=(r"^final_logits_bias$", r"coder\.version$"),
        )
