"""Any encoder with any decoder that attends to it, in the format of transformers' EncoderDecoderModel."""

from collections.abc import Callable

from keras import ops

from tfheads.backbones import EncoderDecoder
from tfheads.checkpoints.paired import FromTwoCheckpoints
from tfheads.checkpoints.rules import renamed, within
from tfheads.checkpoints.tables import CROSS_ATTENTION, Optional, Table
from tfheads.heads import TaskHead
from tfheads.layers.projections import dense
from tfheads.registry import family, family_of


def language_model_head(config):
    """The head of the decoder's own language model, where the logits are of the labels' own places."""
    head = family_of(config.decoder.model_type).heads["causal-lm"].make(config.decoder)
    head.causal = False
    return head


@family("encoder-decoder")
class PairedBackbones(EncoderDecoder):
    """The backbones of two families, such as BERT and GPT-2; reference: `transformers.EncoderDecoderModel`."""

    class_prefix = "EncoderDecoder"
    class_names = {"seq2seq-lm": ("EncoderDecoderModel", "GPT2ForSequenceToSequence")}
    checkpoint_prefix = ""
    model_mixins = (FromTwoCheckpoints,)
    inert = {"decoder_start_token_id": "read where labels are moved by one place"}
    heads = {"seq2seq-lm": TaskHead(language_model_head)}
    reference = "Rothe et al. 2019, transformers.EncoderDecoderModel"

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        make_pooler = family_of(config.encoder.model_type).heads["base"].make
        self.encoder_head = None if make_pooler is None else make_pooler(config.encoder)
        if self.encoder_head is not None:
            self.encoder_head.trainable = False  # it is part of the checkpoint, but nothing reads what it makes

    @staticmethod
    def make_encoder(config):
        return family_of(config.encoder.model_type)(config.encoder, name="encoder")

    @staticmethod
    def make_decoder(config, encoder):
        one = family_of(config.decoder.model_type)
        if "causal-lm" not in one.heads or "encoder_hidden_states" not in one.input_names:
            raise ValueError(f"decoder must be of a family with cross-attention, got {config.decoder.model_type!r}")
        if not config.decoder.add_cross_attention:
            raise ValueError("decoder must have add_cross_attention=True, got False")
        return one(config.decoder, name="decoder")

    @staticmethod
    def make_bridge(config):
        if getattr(config.decoder, "cross_attention_hidden_size", None) is not None:
            raise ValueError("cross_attention_hidden_size must be None in the decoder's config, got another value")
        widths = config.encoder.hidden_size, config.decoder.hidden_size
        return None if widths[0] == widths[1] else dense(*widths)

    def target_of_labels(self, labels):
        """The labels moved by one place, and a mask without their padding; what targets begin with is never hidden."""
        ids = self.moved_right(labels)
        real = ops.cast(ids != self.config.pad_token_id, "int32")
        return {"decoder_input_ids": ids, "decoder_attention_mask": ops.concatenate([real[:, :1] | 1, real[:, 1:]], 1)}

    def initial_deviation(self, path):
        owner, path = self._owner(path)
        return owner.initial_deviation(path)

    def initial_value(self, path, shape):
        owner, path = self._owner(path)
        return owner.initial_value(path, shape)

    def _owner(self, path: str):
        """Whose weights stand at a path, and the path as the owner's own model would have it."""
        for part in ("encoder", "decoder"):
            if path.startswith(f"backbone.{part}."):
                return getattr(self, part), path.replace(f"{part}.", "", 1)
        return self.decoder, path

    @classmethod
    def head_rules(cls, task, config):
        decoder = family_of(config.decoder.model_type)
        whole = _below("decoder.", decoder.checkpoint_base("causal-lm"))
        return tuple(renamed(rules, whole) for rules in decoder.head_rules("causal-lm", config.decoder))

    @staticmethod
    def table(config):
        encoder, decoder = (family_of(one.model_type) for one in (config.encoder, config.decoder))
        theirs, ours = encoder.table(config.encoder), decoder.table(config.decoder)
        base = decoder.checkpoint_base("causal-lm")
        bare = _below("encoder.", "")
        (pooler,) = encoder.head_rules("base", config.encoder)
        return Table(
            backbone={
                **within("encoder", renamed(theirs.backbone, bare)),
                **within("encoder_head", renamed(pooler, bare)),
                **within("decoder", renamed(ours.backbone, _below(f"decoder.{base}", base))),
                "bridge": "enc_to_dec_proj",
            },
            aliases=tuple(alias.renamed(_below("decoder.", base)) for alias in ours.aliases),
            optional=(CROSS_ATTENTION, Optional("encoder_head")),
            ignored=(*theirs.ignored, *ours.ignored),
        )


def _below(prefix: str, base: str) -> Callable[[str], str]:
    """Puts a prefix before checkpoint names, and what `{base}` stands for into them."""
    return lambda name: prefix + name.replace("{base}", base)
