"""T5's encoder alone."""

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Alias, Table
from tfheads.families.t5 import INERT, T5, deviation, embeddings, rules, stack
from tfheads.heads import CLASSIFIER, TaskHead, TokenClassificationHead
from tfheads.registry import family


@family("t5", alone=True)
class T5Encoder(Backbone):
    """T5's encoder alone; reference: `transformers.T5EncoderModel`."""

    class_prefix = "T5"
    checkpoint_prefix = "transformer"
    inert = INERT | {"num_decoder_layers": "read by the decoder"}
    heads = {
        "text-encoding": TaskHead(),
        "token-classification": TaskHead(
            lambda config: TokenClassificationHead(config.d_model, config.num_labels, config.classifier_dropout),
            CLASSIFIER,
        ),
    }
    reference = T5.reference
    make_embeddings = staticmethod(embeddings)

    @classmethod
    def checkpoint_base(cls, task):
        return "transformer." if task == "token-classification" else ""

    @staticmethod
    def make_stack(config):
        if config.is_decoder:
            raise ValueError("is_decoder must be False for an encoder, got True")
        return stack(config, config.num_layers, causal=False)

    def initial_deviation(self, path):
        return 1.0 if path.startswith("head.") else deviation(self.config, path)

    @staticmethod
    def table(config):
        own = {f"{path.removeprefix('encoder.')}": name for path, name in rules(config, "encoder.", 1).items()}
        return Table(
            backbone={"embeddings.token": "shared", **own},
            aliases=(Alias("{base}encoder.embed_tokens.weight", "{base}shared.weight"),),
            other_heads=("decoder", "transformer.decoder", "lm_head"),
        )
