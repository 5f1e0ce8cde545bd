"""BART's decoder alone."""

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import CROSS_ATTENTION, Alias, Optional, Table
from tfheads.families.bart import Bart, decoder_stack, embeddings, rules
from tfheads.heads import LANGUAGE_MODEL, LanguageModelHead, TaskHead
from tfheads.registry import family


@family("bart", alone=True)
class BartDecoder(Backbone):
    """BART's decoder alone; labels are of the logits' own places; reference: `transformers.BartForCausalLM`."""

    class_prefix = "Bart"
    checkpoint_prefix = "model.decoder"
    input_names = (*Backbone.input_names, "encoder_hidden_states", "encoder_attention_mask")
    inert = Bart.inert | dict.fromkeys(
        ("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop"), "read by the encoder"
    )
    heads = {
        "causal-lm": TaskHead(
            lambda config: LanguageModelHead(config.d_model, config.vocab_size, tied=config.tie_word_embeddings),
            LANGUAGE_MODEL,
        )
    }
    reference = Bart.reference
    make_embeddings = staticmethod(embeddings)
    make_stack = staticmethod(decoder_stack)
    initial_deviation = Bart.initial_deviation

    @staticmethod
    def table(config):
        return table(config)


def table(config, optional: tuple[Optional, ...] = (CROSS_ATTENTION,)) -> Table:
    """The table of a decoder alone, of which a checkpoint may lack what is `optional`."""
    tokens = "{base}embed_tokens.weight"
    names = ("lm_head.weight", "model.shared.weight") if config.tie_word_embeddings else ()
    return Table(
        backbone={"embeddings.token": "embed_tokens", **rules("", "")},
        aliases=tuple(Alias(name, tokens) for name in names),
        optional=optional,
        other_heads=("model.encoder", "model.shared"),
        ignored=(r"^final_logits_bias$", r"coder\.version$"),
    )
