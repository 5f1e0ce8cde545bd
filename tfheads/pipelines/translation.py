"""The translation pipeline."""

import re
from collections.abc import Mapping

from tfheads.pipelines.base import shortened
from tfheads.pipelines.text_to_text_generation import TextToTextGenerationPipeline, TextToTextSettings, bounds

LANGUAGES = ("src_lang", "tgt_lang")
# Room that the translation has beyond the text's own tokens before there is a warning; as in transformers.
ROOM = 0.9


class TranslationPipeline(TextToTextGenerationPipeline):
    """Translates each text, with an encoder-decoder; `translation_en_to_de` is this one between two languages.

    An answer is a list of `{"translation_text"}`, with `return_tensors` of `{"translation_token_ids"}`; for the rest
    and the other options see `TextToTextGenerationPipeline`. Once there is a warning of a text for whose translation
    there may be too little room.

    Options:
        src_lang, tgt_lang: the languages, as the tokenizer calls them. Tokenizers of several languages need both, and
            mark texts with them; for others they say which of the config's `task_specific_params` hold.
    """

    task, answer_name = "translation", "translation"
    option_names = (*LANGUAGES, *TextToTextGenerationPipeline.option_names)

    def settings(self, options: dict) -> TextToTextSettings:
        if self._marks_languages:
            self._check_languages(options)
        return super().settings(options)

    def task_parameters(self, options: Mapping) -> Mapping:
        parameters = getattr(self.model.config, "task_specific_params", None) or {}
        source, target = (options.get(name) for name in LANGUAGES)
        return parameters.get(f"translation_{source}_to_{target}") or super().task_parameters(options)

    def encoded(self, texts: list[str], settings: TextToTextSettings) -> tuple[list[list[int]], dict]:
        if not self._marks_languages:
            return super().encoded(texts, settings)
        made = dict(self._marked(texts, settings.options))
        rows = made.pop("input_ids")
        return rows, {name: value for name, value in made.items() if name == "forced_bos_token_id"}

    def check(self, text: str, length: int, settings: TextToTextSettings) -> None:
        _, most = bounds(settings)
        if length > ROOM * most:
            message = "%s has %d tokens, its translation at most %d, so that it may be cut: give more max_new_tokens"
            self.warn(message, shortened(text), length, most)

    @property
    def _marks_languages(self) -> bool:
        return hasattr(self.tokenizer, "_build_translation_inputs")

    def _marked(self, texts: list[str], options: Mapping) -> Mapping:
        """What the tokenizer makes of texts between two languages."""
        truncation = self._within_positions({"truncation": options.get("truncation") or False})
        languages = {name: options[name] for name in LANGUAGES}
        return self.tokenizer._build_translation_inputs(
            texts, return_tensors=None, verbose=False, **languages, **truncation
        )

    def _check_languages(self, options: Mapping) -> None:
        """Requires languages that the tokenizer has: of others it makes an unknown token, or nothing.

        Raises:
            ValueError: a language is missing or not known.
        """
        name = type(self.tokenizer).__name__
        for option in LANGUAGES:
            if not isinstance(options.get(option), str):
                raise ValueError(f"{option} must be a language of {name}, got {options.get(option)!r}")
        try:
            made = self._marked([""], options)
        except KeyError as error:
            raise ValueError(f"src_lang and tgt_lang must be languages of {name}, got {error}") from None
        unknown = (None, self.tokenizer.unk_token_id)
        wrong = {"src_lang": any(one in unknown for one in made["input_ids"][0])}
        wrong["tgt_lang"] = made["forced_bos_token_id"] in unknown
        for option in LANGUAGES:
            if wrong[option]:
                raise ValueError(f"{option} must be a language of {name}, got {options[option]!r}")


def languages_of(task: str) -> dict | None:
    """The languages in the name of a task such as "translation_en_to_de", as options; None for another task."""
    found = re.fullmatch("translation_(.+?)_to_(.+)", task)
    return dict(zip(LANGUAGES, found.groups(), strict=True)) if found else None
