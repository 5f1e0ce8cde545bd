"""The text-generation pipeline, and the options of generation in pipelines."""

from collections.abc import Mapping

from tfheads.generation import settings as generation_settings
from tfheads.pipelines.base import Pipeline, padded

# What neither the call nor the model's generation config sets; transformers' pipeline has the same.
DEFAULTS = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
GENERATION_OPTIONS = {
    *generation_settings.OWN.keys() - generation_settings.OUTPUTS.keys(),
    *generation_settings.NEUTRAL,
    *generation_settings.WITHOUT_EFFECT,
}
# A length can be given in two ways; who gives one replaces both.
OTHER_LENGTH = {
    "max_new_tokens": "max_length",
    "max_length": "max_new_tokens",
    "min_new_tokens": "min_length",
    "min_length": "min_new_tokens",
}
OWN_OPTIONS = (
    "return_full_text",
    "return_tensors",
    "clean_up_tokenization_spaces",
    "skip_special_tokens",
    "prefix",
    "handle_long_generation",
    "tokenizer_encode_kwargs",
)


class GeneratingPipeline(Pipeline):
    """A pipeline whose options are also those of `model.generate`."""

    def with_defaults(self, options: Mapping) -> dict:
        replaced = {other for name, other in OTHER_LENGTH.items() if options.get(name) is not None}
        return {**{name: value for name, value in self.options.items() if name not in replaced}, **options}


class TextGenerationPipeline(GeneratingPipeline):
    """Goes on with each string.

    An answer is a list of `{"generated_text"}`, `num_return_sequences` of them. An empty string begins with the model's
    first token. What neither the call nor the model's generation config sets is as in transformers: `max_new_tokens`
    256 (less where the model has fewer positions), `do_sample` True, `temperature` 0.7.

    Options:
        return_full_text: whether the answer begins with the given string; default True.
        return_tensors: answers are `{"generated_token_ids"}`, prompt included, in place of text.
        clean_up_tokenization_spaces, skip_special_tokens: as in the tokenizer's `decode`; default None and True.
        prefix: goes before every string and is not returned.
        handle_long_generation: "hole" drops the beginning of a string that leaves no room for the new tokens;
            None makes it an error.
        tokenizer_encode_kwargs: passed to the tokenizer.

    All options of `model.generate` are options too: `max_new_tokens`, `do_sample`, `num_beams`, `stop_strings`,
    `seed`, `streamer` (for one text at a time), ...
    """

    task, model_task = "text-generation", "causal-lm"
    option_names = (
        *OWN_OPTIONS,
        *sorted(GENERATION_OPTIONS),
        "generation_config",
        "seed",
        "jit_compile",
        "streamer",
    )

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        if isinstance(inputs, (list, tuple)) and any(isinstance(part, (dict, list, tuple)) for part in inputs):
            raise TypeError(
                "inputs must be strings, got chat messages: use tokenizer.apply_chat_template(..., tokenize=False)"
            )
        return super().__call__(inputs, batch_size=batch_size, **options)

    def settings(self, options: dict) -> dict:
        hole = options.get("handle_long_generation")
        if hole not in (None, "hole"):
            raise ValueError(f"handle_long_generation must be None or 'hole', got {hole!r}")
        if options.get("return_tensors") and options.get("return_full_text") is not None:
            raise ValueError("return_full_text must not be given with return_tensors, which returns token ids")
        return options

    def answer(self, texts: list[str], settings: dict) -> list:
        asked = {name: value for name, value in settings.items() if name not in OWN_OPTIONS}
        config = asked.get("generation_config") or self.model.generation_config
        encoding = settings.get("tokenizer_encode_kwargs") or {}
        prefix = settings.get("prefix") or ""
        rows = self.tokenizer([prefix + text for text in texts], verbose=False, **encoding)["input_ids"]
        rows = [row or [self._first_token(config)] for row in rows]
        asked = self._completed(asked, config, rows, settings.get("handle_long_generation"))
        ids, mask = padded(rows, "left"), padded([[1] * len(row) for row in rows], "left")
        made = self.model.new_tokens(ids, attention_mask=mask, tokenizer=self.tokenizer, **asked)
        count = len(made) // len(rows)
        return [
            [self._record(text, row, tokens.tolist(), settings) for tokens in made[index * count :][:count]]
            for index, (text, row) in enumerate(zip(texts, rows, strict=True))
        ]

    def _first_token(self, config) -> int:
        begin = self.tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
        if begin is None:
            raise ValueError("inputs must not hold empty strings: there is no bos_token_id to begin with")
        return begin

    def _completed(self, asked: dict, config, rows: list[list[int]], handle_long: str | None) -> dict:
        """The options of `generate` with the defaults; shortens `rows` where they leave no room and may be cut."""
        given = {name for name in (*DEFAULTS, "max_length") if asked.get(name, getattr(config, name, None)) is not None}
        asked = {**{name: value for name, value in DEFAULTS.items() if name not in given}, **asked}
        limit = self.model.backbone.length_limit
        if "max_length" in given and "max_new_tokens" not in given:
            del asked["max_new_tokens"]
        elif limit is not None:
            new = asked.get("max_new_tokens", config.max_new_tokens)
            if "max_new_tokens" not in given:
                room = limit if handle_long == "hole" else limit - max(map(len, rows))
                new = asked["max_new_tokens"] = max(1, min(new, room - 1 if handle_long == "hole" else room))
            if handle_long == "hole":
                if not 1 <= new < limit:
                    raise ValueError(f"max_new_tokens must be from 1 to {limit - 1} in this model, got {new!r}")
                rows[:] = [row[-(limit - new) :] for row in rows]
        return asked

    def _record(self, text: str, prompt: list[int], new: list[int], settings: dict) -> dict:
        if settings.get("return_tensors"):
            return {"generated_token_ids": prompt + new}
        # The new tokens alone would lose the space that SentencePiece's decoders take from the first token.
        generated = self._decoded(prompt + new, settings)[len(self._decoded(prompt, settings)) :]
        full = settings.get("return_full_text")
        return {"generated_text": text + generated if full is None or full else generated}

    def _decoded(self, ids: list[int], settings: dict) -> str:
        skip = settings.get("skip_special_tokens")
        return self.tokenizer.decode(
            ids,
            skip_special_tokens=True if skip is None else skip,
            clean_up_tokenization_spaces=settings.get("clean_up_tokenization_spaces"),
        )
