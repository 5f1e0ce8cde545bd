"""The summarization pipeline."""

from tfheads.pipelines.base import shortened
from tfheads.pipelines.text_to_text_generation import TextToTextGenerationPipeline, TextToTextSettings, bounds


class SummarizationPipeline(TextToTextGenerationPipeline):
    """Writes a summary of each text, with an encoder-decoder.

    An answer is a list of `{"summary_text"}`, with `return_tensors` of `{"summary_token_ids"}`; for the rest and the
    options see `TextToTextGenerationPipeline`. Once there is a warning of a text that has fewer tokens than its summary
    must have.
    """

    task, answer_name = "summarization", "summary"

    def check(self, text: str, length: int, settings: TextToTextSettings) -> None:
        least, _ = bounds(settings)
        if length < least:
            message = "%s has %d tokens, and its summary will have at least %d: give a smaller min_length"
            self.warn(message, shortened(text), length, least)
