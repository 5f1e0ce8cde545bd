"""From a model's variables to a checkpoint that PyTorch's transformers loads."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.checkpoints.rules import Binding
from tfheads.checkpoints.safetensors_files import TensorSource, write_shards
from tfheads.checkpoints.tables import Table, is_written
from tfheads.layers.low_rank import LowRank


def tensor_sources(model) -> Iterator[TensorSource]:
    """Every tensor of the checkpoint, under transformers' names, its values read when it is written."""
    table: Table = model.family.table(model.config)
    base = model.family.checkpoint_base(model.weights_of)
    changes = {id(layer.kernel): layer.adapter for _, layer in layers_by_path(model) if getattr(layer, "adapter", None)}
    bindings = table.bindings(model, base)
    sources = {id(binding): list(_sources(binding, changes)) for binding in bindings}
    for binding in bindings:
        if is_written(binding, model.task):
            yield from sources[id(binding)]
    named = {source.name: source for binding in bindings for source in sources[id(binding)]}
    for alias in table.aliases_below(base):
        if alias.written and alias.of in named:
            source = named[alias.of]
            yield TensorSource(alias.name, source.shape, source.dtype, source.read)


def write_checkpoint(model, directory: Path, max_shard_size: "int | str" = "5GB") -> list[str]:
    """Writes weights, config.json and, for models that generate, generation_config.json; returns the file names."""
    files = write_shards(tensor_sources(model), directory, max_shard_size)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.backbone.token_table.dtype)
    (directory / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    files.append("config.json")
    if model.backbone.causal:
        # Not its save_pretrained, which refuses settings without an effect: a save must not fail for them.
        model.generation_config.to_json_file(directory / "generation_config.json")
        files.append("generation_config.json")
    return files


def _sources(binding: Binding, changes: Mapping[int, LowRank]) -> Iterator[TensorSource]:
    """A binding's tensors, with the changes of adapters in them."""
    outlines = [np.broadcast_to(np.float32(0), variable.shape) for variable in binding.variables]
    dtype = np.dtype(binding.variables[0].value.dtype.as_numpy_dtype)
    for index, outline in enumerate(binding.operation.to_tensors(outlines)):

        def read(index=index):
            values = [_value(variable, changes.get(id(variable))) for variable in binding.variables]
            return np.ascontiguousarray(binding.operation.to_tensors(values)[index])

        yield TensorSource(binding.names[index], outline.shape, dtype, read)


def _value(variable: keras.Variable, change: LowRank | None) -> np.ndarray:
    value = variable.numpy()
    return value if change is None else (np.asarray(value, "float32") + change.change()).astype(value.dtype)
