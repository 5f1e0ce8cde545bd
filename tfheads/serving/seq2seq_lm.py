"""Signatures of encoder-decoders: text in, the text that is written from it out."""

from collections.abc import Mapping

import tensorflow as tf

from tfheads.generation.plan import Prompt
from tfheads.generation.prompts import target_start
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.generation import DEFAULT_NEW_TOKENS, GenerationBundle
from tfheads.serving.rows import NO_LIMIT, first_tokens
from tfheads.serving.token_level import valid_text


class Seq2SeqLMBundle(GenerationBundle):
    """An encoder-decoder with its tokenizer and the whole generation loop; the source is encoded once.

    Args:
        model: an encoder-decoder with a language model's head.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of `serving_default`, see `Served.export_serving`.

    Raises:
        ValueError: an option out of range, a task that the config does not name, or nothing that targets begin with.
    """

    option_names = (*GenerationBundle.option_names, "decoder_start_token_id", "prefix", "task")

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        options = {**task_options(model.config, options.get("task")), **options}
        super().__init__(model, graph, tokenizer, options)
        self.row_inputs = ["input_ids"]  # of a source nothing else is read
        self.start = target_start(options, model.generation_config)
        self.prefix = options.get("prefix", getattr(model.config, "prefix", None)) or ""
        if not isinstance(self.prefix, str):
            raise ValueError(f"prefix must be a string, got {self.prefix!r}")

    def default_new_tokens(self, config) -> int:
        most = DEFAULT_NEW_TOKENS if config.max_length is None else config.max_length - 1
        return min(config.max_new_tokens or max(1, most), self.limit - 1)

    def prompt(self, text: tf.Tensor, most_new: tf.Tensor) -> tuple[Prompt, tf.Tensor]:
        rows = self.encode(tf.strings.join([self.prefix, valid_text(text)]))["input_ids"]
        fill = self.fills["input_ids"]
        source, lengths = first_tokens(rows, NO_LIMIT, fill)
        lacking = tf.cast(tf.shape(source)[1] == 0, tf.int32)
        source = tf.pad(source, [[0, 0], [0, lacking]], constant_values=fill)
        real = tf.range(tf.shape(source)[1])[None, :] < tf.maximum(lengths, 1)[:, None]
        ones = tf.ones_like(lengths)
        prompt = Prompt(tf.fill([tf.size(text), 1], self.start), ones, {"input_ids": source, "attention_mask": real})
        return prompt, lengths > 0

    def answer(self, text: tf.Tensor, prompt: Prompt, new: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        start = tf.fill([tf.size(text), 1], self.start)
        return {"generated_text": self.detokenize(tf.concat([start, new], axis=1))}


def task_options(config, task: str | None) -> Mapping:
    """What a config's `task_specific_params` say of a task, as options of an export.

    Raises:
        ValueError: it says nothing of it.
    """
    tasks = getattr(config, "task_specific_params", None) or {}
    if task is None:
        return {}
    if task not in tasks:
        raise ValueError(f"task must be one of config.task_specific_params, {', '.join(tasks) or 'none'}, got {task!r}")
    found = {name: value for name, value in tasks[task].items() if name in Seq2SeqLMBundle.option_names}
    for side in ("max", "min"):  # a length counts the token that targets begin with
        total = tasks[task].get(f"{side}_length")
        if total is not None and f"{side}_new_tokens" not in found:
            found[f"{side}_new_tokens"] = max(total - 1, 1 if side == "max" else 0)
    return found
