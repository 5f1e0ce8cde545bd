"""Adapters as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfheads.adapters.dense_modules import DenseModule, dense_modules, head_bindings, module_of
from tfheads.adapters.lora import LoraSettings
from tfheads.checkpoints import hub
from tfheads.checkpoints.atomic import replaced_directory
from tfheads.checkpoints.loading import listed
from tfheads.checkpoints.rules import Binding
from tfheads.checkpoints.safetensors_files import TensorSource, write_safetensors
from tfheads.checkpoints.tensor_files import TensorFiles, open_tensors

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}
READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "bias"}
# Keys that change no number of an adapter that is trained.
INERT = {
    "alora_invocation_tokens",
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}


def write_adapter(model, directory: "str | os.PathLike") -> None:
    """Writes a model's adapters and the head that trained with them."""
    whole = [binding for binding in head_bindings(model) if module_of(binding) in model.lora.whole]
    with replaced_directory(directory, entry=CONFIG, stale=(WEIGHTS, OLD_WEIGHTS)) as staging:
        write_safetensors(Path(staging, WEIGHTS), [*_adapter_sources(model), *_head_sources(whole)])
        text = json.dumps(_config(model), indent=2, sort_keys=True)
        Path(staging, CONFIG).write_text(text + "\n", encoding="utf-8")


def read_adapter(model, name_or_path: "str | os.PathLike", trainable: bool, options: Mapping) -> None:
    """Adapts a model by what is in a directory or a repository."""
    directory = Path(hub.resolve(name_or_path, weights=False, **options))
    hub.fetch_folders(str(name_or_path), ["adapter_model.*"], **options)
    settings = _read_settings(directory)
    path = next((directory / name for name in (WEIGHTS, OLD_WEIGHTS) if (directory / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{directory} has neither {WEIGHTS} nor {OLD_WEIGHTS}")
    with open_tensors(path) as tensors:
        modules, whole = _account(model, tensors, settings["r"])
        lora = LoraSettings(
            rank=settings["r"],
            targets=tuple(module.name for module in modules),
            alpha=float(settings["lora_alpha"]),
            dropout=float(settings.get("lora_dropout") or 0.0),
            rank_stabilized=bool(settings.get("use_rslora")),
            whole=tuple({module_of(binding): None for binding in whole}),
        )
        model.adapt(lora)
        for module, adapters in model.adapters:
            _fill(module, adapters, tensors)
    if not trainable:
        for variable in model.trainable_variables:
            variable.trainable = False


def _adapter_sources(model) -> Iterator[TensorSource]:
    for module, adapters in model.adapters:
        down = adapters[0].down.kernel.numpy().T
        (up,) = module.operation.to_tensors([adapter.up.kernel.numpy() for adapter in adapters])
        up = up if module.operation.outputs_first else up.T
        for name, value in (("lora_A", down), ("lora_B", up)):
            yield TensorSource.of(f"{PREFIX}{module.name}.{name}.weight", np.ascontiguousarray(value))


def _head_sources(bindings: list[Binding]) -> Iterator[TensorSource]:
    for binding in bindings:
        values = binding.operation.to_tensors([variable.numpy() for variable in binding.variables])
        for name, value in zip(binding.names, values, strict=True):
            yield TensorSource.of(PREFIX + name, np.ascontiguousarray(value))


def _config(model) -> dict:
    modules = [module for module, _ in model.adapters]
    return {
        "base_model_name_or_path": getattr(model.config, "_name_or_path", None) or None,
        "bias": "none",
        "fan_in_fan_out": not any(module.operation.outputs_first for module in modules),
        "inference_mode": True,
        "lora_alpha": model.lora.alpha,
        "lora_dropout": model.lora.dropout,
        "modules_to_save": sorted(model.lora.whole) or None,
        "peft_type": "LORA",
        "r": model.lora.rank,
        "target_modules": [module.name for module in modules],
        "task_type": TASK_TYPES.get(model.task),
        "use_rslora": model.lora.rank_stabilized,
    }


def _read_settings(directory: Path) -> dict:
    """The adapter's config, in which nothing is left unread that would change a number.

    Raises:
        FileNotFoundError, ValueError: there is none, it is damaged, or it asks for what is not supported.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no {CONFIG}, so it is no adapter in PEFT's format")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        kind, rank, alpha = settings["peft_type"], settings["r"], settings["lora_alpha"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no config of a LoRA adapter: {error!r}") from None
    unread = sorted(name for name, value in settings.items() if value and name not in READ | INERT)
    if kind != "LORA" or settings.get("bias", "none") != "none" or unread:
        found = unread[0] if unread else "peft_type" if kind != "LORA" else "bias"
        raise ValueError(f"{path} has {found}={settings[found]!r}, which tfheads does not support: plain LoRA is")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)) or not alpha > 0:
        raise ValueError(f"{path} must have r of at least 1 and lora_alpha above 0, got {rank!r} and {alpha!r}")
    return settings


def _account(model, tensors: TensorFiles, rank: int) -> tuple[list[DenseModule], list[Binding]]:
    """The modules that an adapter adapts, and the head that it holds, filled; every tensor has its place.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape; nothing has changed.
    """
    left = {name.removeprefix(PREFIX): name for name in tensors.names()}
    modules, wrong = [], []
    for module in dense_modules(model):
        names = [f"{module.name}.lora_{letter}.weight" for letter in "AB"]
        shapes = (rank, module.inputs), (sum(layer.units for layer in module.layers), rank)
        if any(name in left for name in names):
            modules.append(module)
            wrong += [name for name, shape in zip(names, shapes, strict=True) if not _is(tensors, left, name, shape)]
            left = {name: stored for name, stored in left.items() if name not in names}
    whole = [binding for binding in head_bindings(model) if any(name in left for name in binding.names)]
    sources = [source for binding in whole for source in _head_sources([binding])]
    for source in sources:
        name = source.name.removeprefix(PREFIX)
        wrong += [] if _is(tensors, left, name, source.shape) else [name]
    held = {name: left.pop(name) for name in [s.name.removeprefix(PREFIX) for s in sources] if name in left}
    if wrong or left or not modules:
        raise ValueError(
            f"the adapter does not fit {type(model).__name__}: missing or of another shape {listed(wrong)}; "
            f"unexpected {listed(list(left))}"
        )
    for binding in whole:
        values = binding.operation.to_variables([tensors.read(held[name]) for name in binding.names])
        for variable, value in zip(binding.variables, values, strict=True):
            variable.assign(value)
    return modules, whole


def _is(tensors: TensorFiles, names: Mapping[str, str], name: str, shape: tuple[int, ...]) -> bool:
    return name in names and tuple(tensors.shape(names[name])) == tuple(shape)


def _fill(module: DenseModule, adapters, tensors: TensorFiles) -> None:
    stored = {name.removeprefix(PREFIX): name for name in tensors.names()}
    down = tensors.read(stored[f"{module.name}.lora_A.weight"])
    up = tensors.read(stored[f"{module.name}.lora_B.weight"])
    adapters[0].down.kernel.assign(np.asarray(down, "float32").T)
    ups = module.operation.to_variables([np.asarray(up if module.operation.outputs_first else up.T, "float32")])
    for adapter, value in zip(adapters, ups, strict=True):
        adapter.up.kernel.assign(value)
