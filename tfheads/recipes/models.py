"""The tokenizer and the model that a recipe's arguments ask for."""

import difflib
from collections.abc import Mapping, Sequence

import transformers

from tfheads.checkpoints import hub, tokenizers
from tfheads.checkpoints.pretrained import read_config, stored_dtype
from tfheads.checkpoints.tensor_files import open_tensors
from tfheads.models import TaskModel
from tfheads.recipes.arguments import TrainingArguments
from tfheads.registry import family_of
from tfheads.vocabulary import check_tokenizer, highest_id

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
TARGET_IDS = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")


def load_tokenizer(arguments: TrainingArguments, **options) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer named in the arguments, or the one beside the model; `options` are the tokenizer's own.

    Raises:
        FileNotFoundError: there is none.
    """
    source = arguments.tokenizer_name or arguments.model_name_or_path or arguments.config_name
    return tokenizers.load_tokenizer(source, **download_options(arguments), **options)


def load_model(arguments: TrainingArguments, tokenizer, task: type[TaskModel], **head) -> TaskModel:
    """The model: a checkpoint's weights, or new ones for the config.

    Args:
        arguments: of the run.
        tokenizer: its ids and its special tokens are those of a model with new weights.
        task: such as `AutoModelForCausalLM`.
        head: config values that the data decides, such as those of `label_config`.

    Raises:
        ValueError: an unknown family or config value, or a vocabulary smaller than the tokenizer's.
        FileNotFoundError: no such checkpoint.
    """
    if arguments.model_name_or_path is not None:
        options = {"dtype": _checkpoint_policy(arguments), "seed": arguments.seed, **download_options(arguments)}
        options["ignore_mismatched_sizes"] = arguments.ignore_mismatched_sizes
        model = task.from_pretrained(arguments.model_name_or_path, **options, **head)
    else:
        config = new_config(arguments, tokenizer)
        model = task.from_config(config, dtype=arguments.policy, seed=arguments.seed, **head)
    check_tokenizer(tokenizer, model.vocab_size)
    return model


def _checkpoint_policy(arguments: TrainingArguments) -> str:
    """Keras' dtype policy for a checkpoint, which decides on its own if dtype is "auto"."""
    if arguments.dtype != "auto":
        return arguments.policy
    directory = hub.resolve(arguments.model_name_or_path, **download_options(arguments))
    with open_tensors(directory) as tensors:
        return arguments.policy_for(stored_dtype(tensors))


def label_config(names: Sequence[str]) -> dict:
    """Config values of a head with these classes, for `load_model`."""
    id2label = dict(enumerate(names))
    return {"num_labels": len(id2label), "id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}


def new_config(arguments: TrainingArguments, tokenizer) -> transformers.PreTrainedConfig:
    """The config of a model with new weights: the family's or a checkpoint's, for this tokenizer, with the overrides.

    Raises:
        ValueError: an unknown family, or an override of a value that the config does not have.
    """
    if arguments.config_name is not None:
        config = read_config(hub.resolve(arguments.config_name, weights=False, **download_options(arguments)))
    else:
        family_of(arguments.model_type)
        config = transformers.AutoConfig.for_model(arguments.model_type)
    known = {**config.to_dict(), **dict.fromkeys(config.attribute_map)}
    for name in arguments.config_overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"config_overrides has {name!r}, unknown to {config.model_type}, the nearest is {near!r}")
    own = {name: getattr(tokenizer, name) for name in SPECIAL_IDS if getattr(tokenizer, name) is not None}
    absent = {name: None for name in SPECIAL_IDS if getattr(config, name, None) is not None and name not in own}
    overrides = {config.attribute_map.get(name, name): value for name, value in arguments.config_overrides.items()}
    targets = _target_ids(config, own)
    values = {**config.to_dict(), "vocab_size": highest_id(tokenizer) + 1, **own, **absent, **targets, **overrides}
    return type(config)(**values)


def _target_ids(config: transformers.PreTrainedConfig, own: Mapping[str, int]) -> dict[str, int | None]:
    """The tokens that an encoder-decoder's targets begin and end with: of this tokenizer, where the config has others.

    A family's config says which of its special tokens they are; where it does not, targets begin with padding.
    """
    if not config.is_encoder_decoder:
        return {}
    found = {}
    for name in TARGET_IDS:
        number = getattr(config, name, None)
        if number is not None:
            same = (special for special in SPECIAL_IDS if getattr(config, special, None) == number)
            found[name] = own.get(next(same, None))
    if found.get("decoder_start_token_id") is None:
        found["decoder_start_token_id"] = own.get("pad_token_id")
    return found


def download_options(arguments: TrainingArguments) -> dict:
    """How the checkpoint is fetched, for functions of `tfheads.checkpoints`."""
    return {"revision": arguments.model_revision, "token": arguments.token, "cache_dir": arguments.cache_dir}
