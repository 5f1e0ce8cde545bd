"""Configs: which keys were read, plain values and back, values replaced."""

import difflib
from collections.abc import Iterable, Mapping

import transformers

from tfheads.deferred_torch import DtypeNames, torch_deferred


class ConfigReader:
    """A config that remembers which of its keys were read."""

    def __init__(self, config: transformers.PreTrainedConfig):
        self._config, self.read = config, set()

    def __getattr__(self, name: str):
        self.read.add(self._config.attribute_map.get(name, name))
        return getattr(self._config, name)


def config_to_dict(config: transformers.PreTrainedConfig) -> dict:
    """A config as plain values, for Keras' files."""
    return {**config.to_dict(), "model_type": config.model_type}


def config_from_dict(values: dict) -> transformers.PreTrainedConfig:
    """The inverse of `config_to_dict`."""
    values = {name: value for name, value in values.items() if name != "transformers_version"}
    with torch_deferred(DtypeNames):
        return transformers.AutoConfig.for_model(**values)


def with_overrides(
    config: transformers.PreTrainedConfig, overrides: Mapping, own_keys: Iterable[str] = ()
) -> transformers.PreTrainedConfig:
    """A config with values replaced; the config itself if there are none.

    Args:
        config: it is not changed.
        overrides: values by name.
        own_keys: names of values that a config may have beside those of its class.

    Raises:
        ValueError: the config has no such value; names the nearest.
    """
    if not overrides:
        return config
    own = {name: overrides[name] for name in own_keys if name in overrides}
    overrides = {name: value for name, value in overrides.items() if name not in own}
    values = {**config.to_dict(), **own}
    if "num_labels" in overrides:  # labels of another number would contradict it
        values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
    with torch_deferred(DtypeNames):
        config, unknown = type(config).from_dict(values, return_unused_kwargs=True, **overrides)
    if unknown:
        name = sorted(unknown)[0]
        known = sorted({*config.to_dict(), *config.attribute_map, *own_keys, "num_labels"})
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"{type(config).__name__} has no {name!r}, did you mean {near!r}")
    return config
