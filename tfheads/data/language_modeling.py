"""The two ways from text to batches that language models are trained on, each in one call."""

from collections.abc import Sequence

import datasets
from transformers import PreTrainedTokenizerBase

from tfheads.data.pipeline import StreamedBlocks, TokenBlocks, TokenRows
from tfheads.data.tokenizing import group_into_blocks, resolve_block_size, split_documents, tokenize_texts

PACKINGS = ("concatenate", "documents")

Batches = TokenBlocks | TokenRows | StreamedBlocks


def causal_blocks(
    texts: datasets.Dataset | datasets.IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int | None = None,
    *,
    packing: str = "concatenate",
    append_end_of_text: bool = False,
    maximum: int | None = None,
    bucket_lengths: Sequence[int] = (),
    num_proc: int | None = None,
    text_column: str = "text",
) -> Batches:
    """Text as blocks for causal language modelling; `.batches(batch_size, ...)` of the result feeds `fit`.

    Args:
        texts: one column of strings, as `sources.load_text` gives it.
        block_size: tokens of a block. Default: the limit of the model or tokenizer, at most 1024.
        packing: `"concatenate"` puts all rows one after the other and cuts (Hugging Face's group_texts), so a block may
            hold several documents and attention reaches across them. `"documents"` cuts every row for itself: a block
            holds tokens of one document only, the last block of each is padded, and the padding has attention_mask 0
            and labels -100.
        append_end_of_text: put the eos token after each row. run_clm does not; with rows that are whole documents it
            tells the model where they end.
        maximum: the most positions the model takes.
        bucket_lengths: for `"documents"`: lengths below block_size that batches of short pieces are padded to.
        num_proc: processes for tokenisation.

    Raises:
        ValueError: an unknown packing, block_size beyond a limit, a corpus shorter than one block.
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing must be one of {', '.join(PACKINGS)}, got {packing!r}.")
    block_size = resolve_block_size(block_size, tokenizer, maximum)
    tokenized = tokenize_texts(
        texts, tokenizer, append_end_of_text=append_end_of_text, num_proc=num_proc, text_column=text_column
    )
    if packing == "concatenate":
        return _blocks(tokenized, block_size)
    _refuse_stream(tokenized, "packing='documents'")
    columns, spans = split_documents(tokenized, block_size)
    return _rows(columns, spans, block_size, tokenizer, bucket_lengths)


def masked_blocks(
    texts: datasets.Dataset | datasets.IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int | None = None,
    *,
    line_by_line: bool = False,
    whole_word: bool = False,
    maximum: int | None = None,
    bucket_lengths: Sequence[int] = (),
    num_proc: int | None = None,
    text_column: str = "text",
) -> Batches:
    """Text as blocks for masked language modelling; give `.batches` a `masking=TokenMasking.from_tokenizer(tokenizer)`.

    Args:
        block_size: tokens of a block, special tokens included (`max_seq_length`).
        line_by_line: every row for itself, truncated and padded, empty ones left out. Otherwise all rows, with the
            special tokens around each, are put one after the other and cut, as in Hugging Face's run_mlm.
        whole_word: also say which tokens belong to one word, for `TokenMasking(whole_word=True)`.
        maximum, bucket_lengths, num_proc: as for `causal_blocks`.

    Raises:
        ValueError: no mask token, block_size beyond a limit, a corpus shorter than one block.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("masked language modelling needs a tokenizer with a mask_token, this one has none.")
    block_size = resolve_block_size(block_size, tokenizer, maximum)
    if line_by_line:
        _refuse_stream(texts, "line_by_line")
        texts = texts.filter(_has_text, input_columns=text_column, desc="Leaving out empty lines")
    tokenized = tokenize_texts(
        texts,
        tokenizer,
        max_length=block_size if line_by_line else None,
        word_continuation=whole_word,
        num_proc=num_proc,
        text_column=text_column,
    )
    if not line_by_line:
        return _blocks(tokenized, block_size)
    columns, spans = split_documents(tokenized, block_size)
    return _rows(columns, spans, block_size, tokenizer, bucket_lengths)


def _blocks(tokenized: datasets.Dataset | datasets.IterableDataset, block_size: int) -> TokenBlocks | StreamedBlocks:
    if isinstance(tokenized, datasets.IterableDataset):
        return StreamedBlocks(tokenized, block_size)
    return TokenBlocks(group_into_blocks(tokenized, block_size))


def _rows(columns, spans, block_size, tokenizer: PreTrainedTokenizerBase, bucket_lengths: Sequence[int]) -> TokenRows:
    # What stands in the padding is never seen or predicted, so a tokenizer without a padding token (GPT-2) needs none.
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return TokenRows(columns, spans, block_size=block_size, pad_token_id=padding, bucket_lengths=bucket_lengths)


def _refuse_stream(texts: datasets.Dataset | datasets.IterableDataset, what: str) -> None:
    if isinstance(texts, datasets.IterableDataset):
        raise ValueError(f"{what} needs the whole corpus, but a stream was given; load it with streaming=False.")


def _has_text(text: str | None) -> bool:
    return bool(text and text.strip())
