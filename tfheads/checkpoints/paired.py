"""An encoder-decoder from the checkpoints of an encoder and of a decoder."""

import keras
import transformers

from tfheads.checkpoints import hub
from tfheads.checkpoints.attribute_walk import checkpoint_variables
from tfheads.checkpoints.initialisation import initialise
from tfheads.checkpoints.pretrained import read_config
from tfheads.layers.part import weights_follow
from tfheads.registry import TASKS

# What is said of the whole model although it begins like a value of the decoder's config.
OF_THE_WHOLE = ("decoder_start_token_id",)


class FromTwoCheckpoints:
    """Mixin of the models that consist of an encoder and a decoder of other families."""

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str,
        decoder_pretrained_model_name_or_path: str,
        *,
        dtype=None,
        seed: int | None = None,
        token: "str | bool | None" = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        **overrides,
    ):
        """Joins two checkpoints; cross-attention that the decoder's lacks is new, which is said.

        Args:
            encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path: directories, or ids of
                repositories on the Hub.
            dtype, seed: as in `from_pretrained`; the seed is for new weights.
            token, cache_dir, local_files_only: as in huggingface_hub.
            overrides: config values to replace, of the encoder with `encoder_` before their names, of the decoder with
                `decoder_`, of the whole without; `decoder_start_token_id`, without which labels cannot be moved, and
                `pad_token_id` are the whole's.

        Raises:
            ValueError, FileNotFoundError: as `from_pretrained`; or the decoder's family has no cross-attention.
        """
        own = {name: value for name, value in overrides.items() if name in OF_THE_WHOLE}
        parts: dict[str, dict] = {"encoder_": {}, "decoder_": {}}
        for name, value in overrides.items():
            if name[:8] in parts and name not in own:
                parts[name[:8]][name[8:]] = value
            else:
                own[name] = value
        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}

        def loaded(task, source, attends, values):
            config = read_config(hub.resolve(str(source), **options))
            config.is_decoder = config.add_cross_attention = attends
            return TASKS[task].from_pretrained(source, dtype=dtype, seed=seed, config=config, **options, **values)

        encoder = loaded("base", encoder_pretrained_model_name_or_path, False, parts["encoder_"])
        decoder = loaded("causal-lm", decoder_pretrained_model_name_or_path, True, parts["decoder_"])
        joined = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config, **own)
        with weights_follow():
            model = cls(joined, dtype=dtype)
        whole = model.backbone
        _copy(encoder.backbone, whole.encoder)
        _copy(decoder.backbone, whole.decoder)
        _copy(encoder.head, whole.encoder_head)
        _copy(decoder.head, model.head)
        if whole.bridge is not None:
            initialise(model, seed=seed, only=whole.bridge.variables)
        return model


def _copy(source: keras.layers.Layer | None, target: keras.layers.Layer | None) -> None:
    """Gives a layer the weights of another one that was made alike."""
    if source is not None:
        for old, new in zip(checkpoint_variables(source), checkpoint_variables(target), strict=True):
            new.assign(old)
