"""The text2text-generation pipeline: what all pipelines share whose model reads a text and writes another."""

import copy
import logging
from collections.abc import Mapping
from typing import NamedTuple

import transformers

from tfheads.generation.prompts import target_start
from tfheads.pipelines.base import padded
from tfheads.pipelines.text_generation import GENERATION_OPTIONS, OTHER_LENGTH, GeneratingPipeline

logger = logging.getLogger("tfheads")

# What nobody sets; transformers' pipelines have the same.
MAX_NEW_TOKENS, NUM_BEAMS = 256, 4
OWN_OPTIONS = ("return_text", "return_tensors", "clean_up_tokenization_spaces", "truncation")
CALL_OPTIONS = ("generation_config", "seed", "jit_compile", "streamer")


class TextToTextSettings(NamedTuple):
    """The options of a call.

    Attributes:
        options: those of the call as they are.
        config: what holds of the generation where the call says nothing.
        generation: the call's own arguments of `model.generate`.
        prefix: goes before every text.
        returns_text, returns_tensors: what an answer holds.
    """

    options: dict
    config: transformers.GenerationConfig
    generation: dict
    prefix: str
    returns_text: bool
    returns_tensors: bool


class TextToTextGenerationPipeline(GeneratingPipeline):
    """Writes a text for each string, with an encoder-decoder.

    An answer is a list of `{"generated_text"}`, `num_return_sequences` of them; as in transformers, the answers of a
    list of strings are these dictionaries themselves if each string has one. An option of the generation is that of
    the call, else that which the config's `task_specific_params` have for the task, else that of the model's
    generation config; what nobody sets is `max_new_tokens` 256 (less where the model has fewer positions) and
    `num_beams` 4. The `prefix` of the task's parameters, or of the config, goes before every string.

    Options:
        return_text: whether there is text in an answer; default True, without it if `return_tensors` is.
        return_tensors: whether there are token ids in an answer, `"generated_token_ids"`, from the token that targets
            begin with on.
        clean_up_tokenization_spaces: as in the tokenizer's `decode`; default False.
        truncation: as in the tokenizer's call; a text that is too long is an error without it.

    All options of `model.generate` are options too: `max_new_tokens`, `num_beams`, `do_sample`, `seed`, ... A
    `generation_config` takes the place of what the task and the pipeline set; what it leaves open is the model's.
    """

    task, model_task = "text2text-generation", "seq2seq-lm"
    answer_name = "generated"
    option_names = (*OWN_OPTIONS, *sorted(GENERATION_OPTIONS), *CALL_OPTIONS)

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        self._warned: set[str] = set()

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        answers = super().__call__(inputs, batch_size=batch_size, **options)
        is_flat = isinstance(inputs, (list, tuple)) and all(len(answer) == 1 for answer in answers)
        return [answer[0] for answer in answers] if is_flat else answers

    def settings(self, options: dict) -> TextToTextSettings:
        tensors = bool(options.get("return_tensors"))
        text = options.get("return_text")
        text = not tensors if text is None else bool(text)
        if not text and not tensors:
            raise ValueError("return_text must be True without return_tensors, got False")
        generation = {name: value for name, value in options.items() if name in GENERATION_OPTIONS}
        generation |= {name: options[name] for name in ("seed", "jit_compile", "streamer") if name in options}
        parameters = self.task_parameters(options)
        config = self._config(options.get("generation_config"), parameters)
        _give_way(config, generation)
        prefix = parameters.get("prefix", getattr(self.model.config, "prefix", None)) or ""
        return TextToTextSettings(options, config, generation, prefix, text, tensors)

    def task_parameters(self, options: Mapping) -> Mapping:
        """What the config's `task_specific_params` have for the task."""
        return (getattr(self.model.config, "task_specific_params", None) or {}).get(self.task) or {}

    def encoded(self, texts: list[str], settings: TextToTextSettings) -> tuple[list[list[int]], dict]:
        """The tokens of the texts, and arguments of `model.generate` that come with them."""
        tokenizer_kwargs = self._within_positions({"truncation": settings.options.get("truncation") or False})
        texts = [settings.prefix + text for text in texts]
        return self.tokenizer(texts, verbose=False, **tokenizer_kwargs)["input_ids"], {}

    def check(self, text: str, length: int, settings: TextToTextSettings) -> None:
        """Warns of a text of so many tokens for which the options seem to be wrong."""

    def warn(self, message: str, *values) -> None:
        """Logs a warning, each once for a pipeline."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *values)

    def answer(self, texts: list[str], settings: TextToTextSettings) -> list:
        rows, more = self.encoded(texts, settings)
        for text, row in zip(texts, rows, strict=True):
            self._check_length(text, row)
            self.check(text, len(row), settings)
        arguments = {**more, **settings.generation}
        start = target_start(arguments, settings.config)
        made = self.model.new_tokens(
            padded(rows, "right", self.tokenizer.pad_token_id or 0),
            attention_mask=padded([[1] * len(row) for row in rows], "right"),
            tokenizer=self.tokenizer,
            generation_config=settings.config,
            **arguments,
        )
        records = [self._record([start, *tokens.tolist()], settings) for tokens in made]
        count = len(records) // len(rows)
        return [records[index * count :][:count] for index in range(len(rows))]

    def _config(self, given, parameters: Mapping) -> transformers.GenerationConfig:
        """The model's generation config with the values of another one, or of the task and the pipeline."""
        config = copy.deepcopy(self.model.generation_config)
        values = parameters if given is None else given.to_dict()
        values = {name: value for name, value in values.items() if value is not None and hasattr(config, name)}
        for name, value in values.items():
            setattr(config, name, value)
            if name in OTHER_LENGTH and OTHER_LENGTH[name] not in values:
                setattr(config, OTHER_LENGTH[name], None)
        if given is None and config.num_beams is None:
            config.num_beams = NUM_BEAMS
        if given is None and config.max_new_tokens is None and config.max_length is None:
            limit = self.model.backbone.generation_limit
            config.max_new_tokens = MAX_NEW_TOKENS if limit is None else max(1, min(MAX_NEW_TOKENS, limit - 1))
        return config

    def _record(self, ids: list[int], settings: TextToTextSettings) -> dict:
        record = {}
        if settings.returns_text:
            record[f"{self.answer_name}_text"] = self.tokenizer.decode(
                ids,
                skip_special_tokens=True,
                clean_up_tokenization_spaces=bool(settings.options.get("clean_up_tokenization_spaces")),
            )
        if settings.returns_tensors:
            record[f"{self.answer_name}_token_ids"] = ids
        return record


def bounds(settings: TextToTextSettings) -> tuple[int, int]:
    """How many new tokens there are at least and at most; 0 for what is not set."""
    return tuple(
        _new_tokens(settings.generation, side) or _new_tokens(settings.config, side) for side in ("min", "max")
    )


def _new_tokens(values, side: str) -> int:
    """How many new tokens one place asks for; a length counts the token that targets begin with."""
    get = values.get if isinstance(values, Mapping) else lambda name: getattr(values, name, None)
    new, total = get(f"{side}_new_tokens"), get(f"{side}_length")
    new = (total - 1 if isinstance(total, int) else 0) if new is None else new
    return new if isinstance(new, int) else 0


def _give_way(config: transformers.GenerationConfig, generation: Mapping) -> None:
    """Lowers a stored least length to the greatest that the call asks for, where the call says nothing of the least."""
    most = _new_tokens(generation, "max")
    if most > 0 and not {"min_length", "min_new_tokens"} & generation.keys() and _new_tokens(config, "min") > most:
        config.min_length, config.min_new_tokens = None, most
