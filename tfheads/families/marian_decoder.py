"""Marian's decoder alone."""

from tfheads.checkpoints.tables import CROSS_ATTENTION
from tfheads.families.bart_decoder import BartDecoder, table
from tfheads.families.marian import POSITIONS, Marian, embeddings
from tfheads.heads import LANGUAGE_MODEL, LanguageModelHead, TaskHead
from tfheads.layers import ScaledInputEmbeddings
from tfheads.registry import family


def language_model_head(config) -> LanguageModelHead:
    """A head over the decoder's tokens; with a table of its own it has as many rows as the encoder has tokens."""
    tied = config.tie_word_embeddings
    return LanguageModelHead(config.d_model, config.decoder_vocab_size if tied else config.vocab_size, tied=tied)


@family("marian", alone=True)
class MarianDecoder(BartDecoder):
    """Marian's decoder alone; labels are of the logits' own places; reference: `transformers.MarianForCausalLM`."""

    class_prefix = "Marian"
    inert = BartDecoder.inert | {
        "vocab_size": "read by the encoder, and by an output table that is not tied",
        "share_encoder_decoder_embeddings": "there is no encoder",
    }
    heads = {"causal-lm": TaskHead(language_model_head, LANGUAGE_MODEL)}
    reference = Marian.reference
    initial_value = Marian.initial_value

    @staticmethod
    def make_embeddings(config):
        return embeddings(config, ScaledInputEmbeddings, config.decoder_vocab_size)

    @staticmethod
    def table(config):
        return table(config, optional=(CROSS_ATTENTION, POSITIONS))
