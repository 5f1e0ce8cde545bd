"""The next-sentence pipeline."""

from typing import NamedTuple

from tfheads.pipelines.rows import TOKENIZER_OPTIONS, Pair, RowsPipeline, softmax, tokenizer_options

LABELS = ("isNext", "notNext")


class NextSentenceSettings(NamedTuple):
    """The options of a call: the second text for inputs without their own, and the tokenizer's options."""

    next_text: str | None
    tokenizer_kwargs: dict


class NextSentencePipeline(RowsPipeline):
    """Whether a text follows another. transformers has no such pipeline.

    An input is `{"text", "next_text"}`, a pair of strings in a list, or a string with `next_text` in the call. An
    answer is `{"label", "score", "scores"}`: "isNext" or "notNext", its probability, and both probabilities by label.

    Options:
        next_text: for the inputs that are strings; may be the second argument.
        truncation, max_length, padding, add_special_tokens: of the tokenizer; texts that are too long are an error
            unless `truncation` is given.
    """

    task, model_task = "next-sentence", "next-sentence-prediction"
    option_names = ("next_text", *TOKENIZER_OPTIONS)
    fields = ("text", "next_text")

    def __call__(self, inputs, next_text: str | None = None, *, batch_size: int | None = None, **options):
        if next_text is not None:
            options["next_text"] = next_text
        return super().__call__(inputs, batch_size=batch_size, **options)

    def settings(self, options: dict) -> NextSentenceSettings:
        next_text = options.get("next_text")
        if next_text is not None and not isinstance(next_text, str):
            raise TypeError(f"next_text must be a string, got {type(next_text).__name__}")
        return NextSentenceSettings(next_text, tokenizer_options(options))

    def example(self, value, place: str = "") -> Pair:
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2
        return super().example(dict(zip(self.fields, value, strict=True)) if is_pair else value, place)

    def rows(self, example: Pair, settings: NextSentenceSettings) -> list[dict]:
        text, next_text = example.text, settings.next_text if example.text_pair is None else example.text_pair
        if next_text is None:
            raise ValueError("next_text must be given with a text, got None")
        return [self.encode_row(text, next_text, **settings.tokenizer_kwargs)]

    def finish(self, example, rows, outputs, settings: NextSentenceSettings) -> dict:
        scores = dict(zip(LABELS, softmax(outputs[0]["logits"]).tolist(), strict=True))
        label = max(scores, key=scores.get)
        return {"label": label, "score": scores[label], "scores": scores}
