"""From text to batches.

`sources` reads text, `tokenizing` makes cached token ids and blocks of them, `language_modeling` does both for the two
kinds of language model, `pipeline` gives batches with an exact position, `masking` hides tokens, `batching` pads rows
of any task, `tokenizer_training` trains tokenizers and `corpora` holds text that needs no download.
"""
