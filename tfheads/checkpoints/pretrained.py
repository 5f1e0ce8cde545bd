"""`from_pretrained`, `save_pretrained` and `push_to_hub` of every model."""

import copy
import json
import logging
import math
import tempfile
from pathlib import Path

import transformers

from tfheads.checkpoints import hub
from tfheads.checkpoints.atomic import replaced_directory
from tfheads.checkpoints.loading import LoadPlan, listed, load
from tfheads.checkpoints.model_card import card_of, write_model_card
from tfheads.checkpoints.saving import write_checkpoint
from tfheads.checkpoints.tensor_files import TensorFiles, open_tensors
from tfheads.configs import with_overrides
from tfheads.deferred_torch import DtypeNames, torch_deferred
from tfheads.layers.part import weights_follow
from tfheads.registry import family_of

logger = logging.getLogger("tfheads")


class Pretrained:
    """Mixin of `TaskModel`: checkpoints in and out.

    Attributes:
        new_weights: names of tensors that the checkpoint lacked, so that they are new.
    """

    new_weights: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *,
        dtype=None,
        config: transformers.PreTrainedConfig | None = None,
        seed: int | None = None,
        revision: str | None = None,
        token: "str | bool | None" = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        ignore_mismatched_sizes: bool = False,
        **overrides,
    ):
        """Loads a checkpoint in Hugging Face's format.

        Args:
            pretrained_model_name_or_path: a directory, or the id of a repository on the Hub.
            dtype: a Keras dtype policy such as "bfloat16" or "mixed_bfloat16", to which the weights are cast;
                "auto" keeps the checkpoint's; None takes Keras' global policy.
            config: used in place of the checkpoint's config.json; it is not changed.
            seed: for the weights of a head that the checkpoint lacks.
            revision, token, cache_dir, local_files_only, force_download: as in huggingface_hub.
            ignore_mismatched_sizes: whether a head of other classes than the config says is left out and a new one
                drawn, instead of an error.
            overrides: config values to replace, such as `num_labels=3` or `id2label={...}`; `from_pt`, which old
                scripts give, changes nothing.

        Raises:
            ValueError: the checkpoint is of another architecture, damaged, or has missing or unexpected tensors; or
                the config has no value of an override.
            FileNotFoundError: there is no such checkpoint.
        """
        overrides.pop("from_pt", None)
        directory = hub.resolve(
            str(pretrained_model_name_or_path),
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        config = read_config(directory) if config is None else copy.deepcopy(config)
        config = with_overrides(config, overrides, cls.config_keys)
        config._name_or_path = str(pretrained_model_name_or_path)
        named = cls._class_for(config)
        with open_tensors(directory) as tensors:
            policy = stored_dtype(tensors) if dtype == "auto" else dtype
            with weights_follow():
                model = named(config, dtype=policy)
            plan = load(model, tensors, seed=seed, ignore_mismatched_sizes=ignore_mismatched_sizes)
        if Path(directory, "generation_config.json").is_file():
            model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
        else:
            model.generation_config.update(**_old_generation_settings(directory, config))
        _report(model, plan)
        model.new_weights = tuple(tensor for binding in plan.new for tensor in binding.names)
        return model

    def save_pretrained(
        self, save_directory: str, *, max_shard_size: "int | str" = "5GB", tokenizer=None, card: str | None = None
    ) -> None:
        """Writes the model in Hugging Face's format, so that it appears whole or not at all.

        Args:
            save_directory: made if it does not exist; files that do not belong to the save are kept.
            max_shard_size: the weights are divided into files of at most this size.
            tokenizer: saved beside the model if given.
            card: text of the model card (README.md); None writes a short one unless there is one by another hand.

        Raises:
            OSError: the disk is full or not writable; what was there before stays as it was.
        """
        with replaced_directory(save_directory) as staging:
            write_checkpoint(self, Path(staging), max_shard_size)
            if tokenizer is not None:
                tokenizer.save_pretrained(staging)
            write_model_card(self, staging, save_directory, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model trained with tfheads",
        private: bool | None = None,
        token: "str | bool | None" = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: "int | str" = "5GB",
        tokenizer=None,
        card: str | None = None,
    ) -> str:
        """Saves the model and uploads it to the Hub; makes the repository if needed.

        Returns:
            The address of the commit.
        """
        card = card_of(self, repo_id) if card is None else card
        with tempfile.TemporaryDirectory() as directory:
            self.save_pretrained(directory, max_shard_size=max_shard_size, tokenizer=tokenizer, card=card)
            return hub.upload(
                directory,
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )


def read_config(directory: str) -> transformers.PreTrainedConfig:
    """The config of a checkpoint.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it is not JSON, has no `model_type`, or one that tfheads does not support.
    """
    path = Path(directory, "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no config.json, so it is no checkpoint in Hugging Face's format")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ValueError(f"{path} has no model_type, so the architecture is not known")
    family_of(values["model_type"])
    with torch_deferred(DtypeNames):
        return transformers.AutoConfig.from_pretrained(directory)


def _old_generation_settings(directory: str, config: transformers.PreTrainedConfig) -> dict:
    """Settings of generation in config.json, where old checkpoints have them and config objects have no place."""
    values = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
    of_generation = set(transformers.GenerationConfig().to_dict()) - set(config.to_dict()) - {"transformers_version"}
    return {name: value for name, value in values.items() if name in of_generation and value is not None}


def stored_dtype(tensors: TensorFiles) -> str:
    """The dtype policy of a checkpoint: the dtype of its largest tensor."""
    return str(tensors.dtype(max(tensors.names(), key=lambda name: math.prod(tensors.shape(name)))))


def _report(model, plan: LoadPlan) -> None:
    """Says once what is new or left out."""
    name = type(model).__name__
    if plan.new:
        new = listed([tensor for binding in plan.new for tensor in binding.names])
        logger.warning("%s: the checkpoint lacks weights, which are new and must be trained: %s", name, new)
    elif plan.dropped:
        logger.info("%s: left out %d tensors of the checkpoint's other heads", name, len(plan.dropped))
