"""`tfheads verify`: whether a checkpoint is understood completely, and gives PyTorch's logits."""

import difflib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import transformers

from tfheads import registry
from tfheads.checkpoints import hub
from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.checkpoints.loading import LoadPlan, load, modern, plan_loading
from tfheads.checkpoints.pretrained import read_config, stored_dtype
from tfheads.checkpoints.tensor_files import open_tensors
from tfheads.checkpoints.tokenizers import load_tokenizer
from tfheads.heads.pooling import LastOfToken
from tfheads.layers.part import weights_follow
from tfheads.models import TaskModel, WithChoices
from tfheads.vocabulary import check_tokenizer, highest_id

TOLERANCE = 1e-5  # of the largest logit, but no less than SMALLEST_TOLERANCE
SMALLEST_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        ok: True, False, or None for something that could not be looked at or need not be there.
        text: what was found.
    """

    name: str
    ok: bool | None
    text: str

    def __str__(self) -> str:
        return f"{ {True: 'ok', False: 'FAILED', None: '-'}[self.ok]:<7}{self.name:<12}{self.text}"


def verify(checkpoint: str, class_name: str | None = None, revision: str | None = None) -> Iterator[Check]:
    """Checks a checkpoint step by step; ends early where going on makes no sense.

    Args:
        checkpoint: a directory in Hugging Face's format, or the id of a repository on the Hub.
        class_name: a class of tfheads in place of the one that config.json names.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: config.json is damaged or of a family that is not supported, or there is no such class.
    """
    directory = hub.resolve(checkpoint, revision=revision)
    config = read_config(directory)
    cls = class_for(config, class_name)
    yield Check("family", True, f"{config.model_type} ({cls.family.class_prefix})")
    yield _class_check(cls, config, class_name)
    with open_tensors(directory) as tensors:
        with weights_follow():
            model = cls(config, dtype="float32")
        try:
            plan = plan_loading(model, tensors)
        except ValueError as error:
            yield Check("weights", False, str(error))
            return
        yield _weights_check(tensors, plan)
        unread = set(tensors.names()) - _read(plan)
        try:
            load(model, tensors, seed=0)
        except ValueError as error:
            yield Check("values", False, str(error))
            return
    yield _tokenizer_check(model, directory)
    if model.backbone.causal and model.task == "causal-lm":
        yield _generation_check(model, directory)
    yield from _pytorch_checks(model, directory, unread)


def class_for(config: transformers.PreTrainedConfig, class_name: str | None) -> type[TaskModel]:
    """The named class to check or load: the one asked for, or the one that config.json names, or the bare model.

    Raises:
        ValueError: there is no class of that name, or it is of another family.
    """
    if class_name is None:
        found = registry.find((config.architectures or [""])[0])
        return registry.named_class(config, "base") if found is None else found._class_for(config)
    found = registry.find(class_name)
    if found is None:
        near = difflib.get_close_matches(class_name, registry.CLASSES, n=1, cutoff=0.0)[0]
        raise ValueError(f"class {class_name!r} is not known, the nearest is {near!r}")
    return found._class_for(config)


def _class_check(cls: type, config, class_name: str | None) -> Check:
    stored = (config.architectures or [None])[0]
    if class_name is None and registry.find(stored or "") is None:
        named = f"config.json names {stored}, which tfheads does not have" if stored else "config.json names no class"
        return Check("class", None, f"{cls.__name__}, for {named}; --class chooses another")
    return Check("class", True, f"{cls.__name__} ({cls.task})")


def _weights_check(tensors, plan: LoadPlan) -> Check:
    total = len(list(tensors.names()))
    used = _read(plan)
    variables = sum(len(binding.variables) for binding in plan.bindings)
    numbers = sum(int(np.prod(variable.shape)) for binding in plan.bindings for variable in binding.variables)
    ignored = total - len(used) - len(plan.dropped) - len(plan.repeated)
    parts = [f"{total} tensors ({stored_dtype(tensors)}): {len(used)} are {variables} variables of {numbers:,} numbers"]
    if plan.repeated:
        parts.append(f"{len(plan.repeated)} repeat others ({_few([name for name, _ in plan.repeated])})")
    if plan.dropped:
        parts.append(f"{len(plan.dropped)} belong to other heads ({_few(plan.dropped)})")
    if ignored:
        parts.append(f"{ignored} hold no weights")
    if plan.new:
        new = sum(len(binding.variables) for binding in plan.new)
        parts.append(f"{new} variables of the head are not in the checkpoint and would be new")
    return Check("weights", not plan.new, "; ".join(parts))


def _read(plan: LoadPlan) -> set[str]:
    """The tensors of a checkpoint that become variables."""
    return {name for binding in plan.bindings for name in binding.names}


def _tokenizer_check(model: TaskModel, directory: str) -> Check:
    try:
        tokenizer = load_tokenizer(directory)
    except FileNotFoundError:
        return Check("tokenizer", None, "none beside the model")
    except Exception as error:  # the tokenizers library raises bare exceptions for a damaged file
        return Check("tokenizer", False, f"cannot be read: {error}")
    highest = highest_id(tokenizer)
    text = f"{type(tokenizer).__name__} with ids up to {highest:,}, the token table has {model.vocab_size:,} rows"
    try:
        check_tokenizer(tokenizer, model.vocab_size)
    except ValueError:
        return Check("tokenizer", False, f"{text}: some ids have no row")
    return Check("tokenizer", highest >= 0, text)


def _generation_check(model: TaskModel, directory: str) -> Check:
    try:
        config = transformers.GenerationConfig.from_pretrained(directory)
        source = "generation_config.json"
    except OSError:
        config, source = model.generation_config, "config.json"
    except ValueError as error:
        return Check("generation", False, f"generation_config.json is not valid: {error}")
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shown = ", ".join(f"{name}={value}" for name, value in ids.items())
    for name, value in ids.items():
        for one in np.atleast_1d([] if value is None else value):
            if not 0 <= one < model.vocab_size:
                return Check("generation", False, f"{source}: {name} {one} is no token id ({shown})")
    return Check("generation", True, f"{source}: {shown}")


def _pytorch_checks(model: TaskModel, directory: str, unread: set[str]) -> Iterator[Check]:
    """Whether PyTorch's transformers reads the same tensors, all but those `unread` here, and gives the same logits."""
    if not hasattr(transformers, type(model).__name__):
        yield Check("logits", None, f"not compared, for transformers has no {type(model).__name__}")
        return
    batches = list(_batches(model))
    names = [criterion.logits for criterion in model.criteria] or ["last_hidden_state"]
    ours = _real([{name: model(batch)[name].numpy() for name in names} for batch in batches], batches, names)
    if not all(np.isfinite(output).all() for output in ours):
        yield Check("logits", False, "some are not finite")
        return
    if importlib.util.find_spec("torch") is None:
        yield Check("logits", None, "finite; not compared, for PyTorch is not installed")
        return
    outputs, report = _from_torch(type(model).__name__, directory, batches)
    yield _keys_check(report, unread)
    yield _logits_check(ours, _real(outputs, batches, names))


def _keys_check(report: dict, unread: set[str]) -> Check:
    """Of what transformers reports of its own loading."""
    known = {modern(name) for name in unread}
    found = {
        "misses": report["missing_keys"],
        "has no place for": [name for name in report["unexpected_keys"] if modern(name) not in known],
        "has another shape of": [name for name, *_ in report["mismatched_keys"]],
    }
    wrong = " and ".join(f"{what} {_few(names)}" for what, names in found.items() if names)
    return Check("PyTorch", not wrong, f"transformers {wrong or 'has a place for each tensor and misses none'}")


def _logits_check(ours: list[np.ndarray], theirs: list[np.ndarray]) -> Check:
    apart = np.max([np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)])
    largest = np.max([np.abs(output).max() for output in theirs])
    tolerance = max(SMALLEST_TOLERANCE, TOLERANCE * largest)
    text = f"at most {apart:.2g} from PyTorch's, tolerance {tolerance:.2g} (the largest is {largest:.3g}), 3 batches"
    return Check("logits", bool(apart <= tolerance), text)


def _batches(model: TaskModel) -> Iterator[dict[str, np.ndarray]]:
    """Token ids from a fixed seed: two tokens, a row, rows with padding."""
    random, longest = np.random.RandomState(0), min(32, model.backbone.length_limit or 32)
    choices = (2,) if isinstance(model, WithChoices) else ()
    ends = [layer.token_id for _, layer in layers_by_path(model) if isinstance(layer, LastOfToken)]
    for rows, time in ((1, min(2, longest)), (1, longest), (3, longest)):
        lengths = np.linspace(time, max(1, time // 3), rows).astype(int)
        mask = (np.arange(time)[None, :] < lengths[:, None]).astype("int32")
        mask = np.broadcast_to(mask.reshape(rows, *(1 for _ in choices), time), (rows, *choices, time))
        ids, last = random.randint(0, model.vocab_size, mask.shape) * mask, mask.sum(-1) - 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if ends:  # rows are classified at their last end token, transformers wants as many in each
            ids[ids == ends[0]] += 1 if ends[0] == 0 else -1
            np.put_along_axis(ids, last[..., None], ends[0], -1)
        elif "decoder_input_ids" in model.accepted_inputs:
            batch["decoder_input_ids"] = random.randint(0, model.vocab_size, (rows, 3))
        if "mc_token_ids" in model.accepted_inputs:  # transformers would take the last ones, padding or not
            batch["mc_token_ids"] = last
        yield batch


def _from_torch(class_name: str, directory: str, batches: list[dict]) -> tuple[list[dict], dict]:
    """What transformers' class of the same name gives for each batch, and what it reports of loading."""
    import torch

    logs = transformers.utils.logging
    logs.disable_progress_bar()
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # its report of loading is a line of ours
    try:
        cls = getattr(transformers, class_name)
        reference, report = cls.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    finally:
        logs.set_verbosity(verbosity)
    inputs = [{name: torch.tensor(one).long() for name, one in batch.items()} for batch in batches]
    with torch.no_grad():
        return [reference.eval()(**one) for one in inputs], report


def _real(outputs: list[dict], batches: list[dict], names: list[str]) -> list[np.ndarray]:
    """The named outputs of each batch, without what belongs to padding where they say something of each token."""
    found = []
    for output, batch in zip(outputs, batches, strict=True):
        mask = batch["attention_mask"] == 1
        for value in (np.asarray(output[name]) for name in names):
            of_tokens = "decoder_input_ids" not in batch and value.shape[: mask.ndim] == mask.shape
            found.append(value[mask] if of_tokens else value)
    return found


def _few(names, most: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
