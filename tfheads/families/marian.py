"""Marian: BART with sines for positions and no norm over the embeddings (Junczys-Dowmunt et al. 2018)."""

from tfheads.backbones import EmbeddedStack, EncoderDecoder
from tfheads.checkpoints.tables import CROSS_ATTENTION, Alias, Optional, Table
from tfheads.families.bart import INERT, OFFSET_LANGUAGE_MODEL, decoder_stack, encoder_stack, rules
from tfheads.heads import OffsetLanguageModelHead, TaskHead
from tfheads.layers import FixedPositionEmbeddings, ScaledInputEmbeddings, TextEmbeddings
from tfheads.layers.sinusoids import halved_sinusoids
from tfheads.registry import family

POSITIONS = Optional("embeddings.position", known=True, unwritten=("seq2seq-lm",))


def embeddings(config, kind: type[TextEmbeddings], vocab_size: int, shared_token=None) -> TextEmbeddings:
    """Tokens and positions of one side."""
    return kind(
        vocab_size,
        config.d_model,
        num_positions=config.max_position_embeddings,
        dropout=config.dropout,
        shared_token=shared_token,
        token_scale=config.d_model**0.5 if config.scale_embedding else 1.0,
    )


def initial_value(path: str, shape: tuple[int, ...]):
    """The table of positions."""
    return halved_sinusoids(*shape) if path.endswith("embeddings.position") else None


@family("marian")
class Marian(EncoderDecoder):
    """Marian's encoder and decoder over one token table or two; reference: `transformers.MarianModel`."""

    class_prefix = "Marian"
    class_names = {"seq2seq-lm": ("MarianMTModel",)}
    checkpoint_prefix = "model"
    inert = INERT
    heads = {
        "base": TaskHead(),
        "seq2seq-lm": TaskHead(
            lambda config: OffsetLanguageModelHead(
                config.d_model, config.decoder_vocab_size, tied=config.tie_word_embeddings
            ),
            OFFSET_LANGUAGE_MODEL,
        ),
    }
    reference = "Junczys-Dowmunt et al. 2018, transformers.MarianModel"

    @staticmethod
    def make_encoder(config):
        if config.share_encoder_decoder_embeddings and config.decoder_vocab_size != config.vocab_size:
            raise ValueError(
                f"decoder_vocab_size must be vocab_size, {config.vocab_size}, unless share_encoder_decoder_embeddings "
                f"is False, got {config.decoder_vocab_size}"
            )
        return EmbeddedStack(
            embeddings(config, FixedPositionEmbeddings, config.vocab_size), encoder_stack(config), name="encoder"
        )

    @staticmethod
    def make_decoder(config, encoder):
        one_table = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
        shared = encoder.embeddings.token if one_table else None
        tokens = embeddings(config, ScaledInputEmbeddings, config.decoder_vocab_size, shared)
        return EmbeddedStack(tokens, decoder_stack(config), name="decoder")

    def initial_deviation(self, path):
        return self.config.init_std

    def initial_value(self, path, shape):
        return initial_value(path, shape)

    @staticmethod
    def table(config):
        shared, tied = config.share_encoder_decoder_embeddings, config.tie_word_embeddings
        tables = {part: f"{{base}}{part}.embed_tokens.weight" for part in ("encoder", "decoder")}
        aliases = []
        if tied:
            aliases.append(Alias("lm_head.weight", "{base}shared.weight" if shared else tables["decoder"]))
        if shared and tied:
            aliases += [Alias(name, "{base}shared.weight") for name in tables.values()]
        elif shared:
            aliases.append(Alias("{base}shared.weight", tables["encoder"], written=True))
        own = {f"{part}.embeddings.token": f"{part}.embed_tokens" for part in tables}
        return Table(
            backbone={
                **({"encoder.embeddings.token": "shared"} if shared and tied else own),
                **rules("encoder.", "encoder."),
                **rules("decoder.", "decoder."),
            },
            aliases=tuple(aliases),
            optional=(CROSS_ATTENTION, POSITIONS),
            ignored=(r"^final_logits_bias$",),
        )
