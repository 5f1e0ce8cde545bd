"""GPT-2: pre-norm decoder with learned positions and an output tied to the token table (Radford et al. 2019)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import Conv1D, FusedConv1D, within
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import LANGUAGE_MODEL, DoubleHead, TaskHead, decoder_heads, sequence_summary
from tfheads.layers import (
    Attention,
    CrossAttention,
    FeedForward,
    LayerNorm,
    PreNormBlock,
    Stack,
    TokenTypesAreTokens,
    View,
)
from tfheads.registry import family


def double_head(config) -> DoubleHead:
    """The language model, and the logit of the token that `mc_token_ids` names."""
    if config.summary_type != "cls_index":  # transformers takes the others along the axis of the choices
        raise ValueError(f"summary_type must be 'cls_index' for double heads, got {config.summary_type!r}")
    return DoubleHead(HEADS["causal-lm"].make(config), sequence_summary(config))


HEADS = decoder_heads()


@family("gpt2")
class GPT2(Backbone):
    """GPT-2's decoder; reference: `transformers.GPT2Model`."""

    class_prefix = "GPT2"
    class_names = {"causal-lm": ("GPT2LMHeadModel", "GPT2ForCausalLM")}
    checkpoint_prefix = "transformer"
    input_names = (
        *Backbone.input_names,
        "token_type_ids",
        "encoder_hidden_states",
        "encoder_attention_mask",
    )
    inert = {
        "reorder_and_upcast_attn": "scores are always float32 before the softmax",
        **dict.fromkeys(
            (
                "summary_type",
                "summary_use_proj",
                "summary_activation",
                "summary_proj_to_labels",
                "summary_first_dropout",
            ),
            "read by the double-heads model",
        ),
    }
    heads = {
        **HEADS,
        "double-heads": TaskHead(
            double_head,
            (within("language_model", LANGUAGE_MODEL), {"summary.summary": "multiple_choice_head.summary"}),
        ),
    }
    reference = "Radford et al. 2019, transformers.GPT2Model"

    @staticmethod
    def make_embeddings(config):
        return TokenTypesAreTokens(
            config.vocab_size, config.hidden_size, num_positions=config.n_positions, dropout=config.embd_pdrop
        )

    @staticmethod
    def make_stack(config):
        norm = partial(LayerNorm, config.hidden_size, config.layer_norm_epsilon)

        def block(index):
            scale = (config.hidden_size // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
            scale /= index + 1 if config.scale_attn_by_inverse_layer_idx else 1
            sizes = config.hidden_size, config.n_head
            options = {"scale": scale, "dropout": config.attn_pdrop}
            return PreNormBlock(
                Attention(*sizes, **options),
                FeedForward(config.hidden_size, config.n_inner or 4 * config.hidden_size, config.activation_function),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                cross_attention=CrossAttention(*sizes, **options) if config.add_cross_attention else None,
                cross_attention_norm=norm() if config.add_cross_attention else None,
                dropout=config.resid_pdrop,
            )

        return Stack([block(index) for index in range(config.n_layer)], View(causal=True), final_norm=norm())

    def initial_scale(self, path):
        residual = path.endswith(("output_dense", "feed_forward.down"))
        return (2 * self.config.n_layer) ** -0.5 if residual else 1.0

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "h.{i}."
        return Table(
            backbone={
                "embeddings.{token,position}": "{wte,wpe}",
                block + "attention": FusedConv1D(theirs + "attn.c_attn", ("query", "key", "value")),
                block + "attention.output_dense": Conv1D(theirs + "attn.c_proj"),
                block + "cross_attention": FusedConv1D(theirs + "crossattention.c_attn", ("key", "value")),
                block + "cross_attention.query": Conv1D(theirs + "crossattention.q_attn"),
                block + "cross_attention.output_dense": Conv1D(theirs + "crossattention.c_proj"),
                block + "{attention,feed_forward,cross_attention}_norm": theirs + "{ln_1,ln_2,ln_cross_attn}",
                block + "feed_forward.up": Conv1D(theirs + "mlp.c_fc"),
                block + "feed_forward.down": Conv1D(theirs + "mlp.c_proj"),
                "stack.final_norm": "ln_f",
            },
            aliases=tied_output(config, "{base}wte.weight"),
            ignored=(r"attn\.(bias|masked_bias)$",),
        )
