"""SavedModels for TensorFlow Serving: strings in, answers out, without Python."""

import os


class Served:
    """Mixin of the models that can be exported."""

    def export_serving(
        self,
        directory: "str | os.PathLike",
        tokenizer,
        version: int = 1,
        *,
        overwrite: bool = False,
        **options,
    ) -> str:
        """Writes `directory/<version>/`, a SavedModel from strings to answers; it appears whole or not at all.

        The signatures, each with a dictionary as its answer; inputs and outputs are `[batch]` unless it says otherwise:

        - `serving_default` of a causal language model: `text` -> `generated_text` (the text and what follows it) and
          `new_text`, with the options that are given here. Of an encoder-decoder and of conditional generation:
          `text` -> `generated_text`, what is written from it.
        - `generate`: the same with `max_new_tokens`, `temperature` (0 takes the likeliest token), `top_k` (0 for no
          limit), `top_p` (1 for no limit) and `seed`, one number for each text. What a text gets depends on its own
          numbers alone; numbers below or above what is possible are taken for the nearest that is.
        - `serving_default` of a masked language model: `text` -> `tokens`, `token_ids`, `scores` and `sequences`, each
          `[batch, masks, top_k]`, and `mask_count`; rows with fewer masks than others are filled up with "" and 0.
        - `fill_mask`: the same with `top_k`; rows that want fewer than others are filled up likewise.
        - `serving_default` of a classifier of texts or documents: `text` -> `label`, `score`, `scores` and `labels`
          `[batch, classes]`; `text_pair`: `text`, `text_pair` likewise, an empty second text is none.
        - `serving_default` of a classifier of tokens: `text` -> `word`, `start`, `end`, `label`, `score`
          `[batch, entities]` and `count`; `start` and `end` are characters of the text.
        - `serving_default` of question answering: `question`, `context` -> `answer`, `start`, `end`, `score`.
        - `serving_default` of multiple choice: `prompt`, `choices` `[batch, choices]` -> `choice`, `index`, `score` and
          `scores` `[batch, choices]`.
        - `serving_default` of next-sentence prediction: `text`, `next_text` -> `probability`, `label`, `score`.
        - `serving_default` of a bare model or a text encoder: `text` -> `embedding` `[batch, width]`.
        - `token_level` of every model: `input_ids`, `attention_mask` `[batch, time]`, `token_type_ids` where the model
          has segment types, an axis more where there are choices -> what the model gives, such as `logits`; without a
          tokenizer it is `serving_default` too. `token_level_xla`: the same compiled by XLA, only if asked for.

        Answers are those of the pipelines. No other signature needs an XLA compiler. Texts that are too long lose their
        beginning where they are gone on from, their end otherwise.

        Args:
            directory: the model's directory, which TensorFlow Serving watches; made if it does not exist.
            tokenizer: the model's tokenizer, or a directory or the id of a repository that holds it. It becomes part
                of the graph. None exports `token_level` alone.
            version: a whole number from 1, the name of the new directory.
            overwrite: whether a version that exists is replaced.
            options: of `serving_default`.
                Models that write: `max_new_tokens` (64, or half of the model's positions if that is less),
                `min_new_tokens`, `eos_token_id`, and the options of `generate` that decide how tokens are found:
                `do_sample`, `num_beams`, `repetition_penalty`, `stop_strings`, ...; all else as in the model's
                generation config. The signature `generate` takes one token at a time. Encoder-decoders also `prefix`,
                which goes before every text, `task`, which takes the options that the config's `task_specific_params`
                have for it, and `decoder_start_token_id`.
                Masked language models: `top_k` (5).
                Classifiers of texts and documents: `function_to_apply` ("softmax", "sigmoid" or "none").
                Classifiers of tokens: `aggregation_strategy` ("simple"), `ignore_labels` (["O"]), `stride`.
                Question answering: `max_seq_len`, `doc_stride`, `max_question_len`, `max_answer_len`,
                `handle_impossible_answer`, `align_to_words`; see the pipelines for these.
                Bare models: `pooling` (what modules.json in the model's directory asks for, or "mean"), `normalize`.
                All: `jit_compile` (False), True adds `token_level_xla`.

        Returns:
            The new directory.

        Raises:
            ValueError: the tokenizer cannot run in the graph with exactly the same ids, or a bad option or version.
            FileExistsError: the version exists and `overwrite` is False.
        """
        from tfheads.serving.export import export

        return export(self, directory, tokenizer, version, overwrite, options)

    def export_litert(self, path: "str | os.PathLike", *, overwrite: bool = False) -> str:
        """Writes a LiteRT file (.tflite) that takes token ids, for phones and small devices.

        It has one signature, `serving_default`: `input_ids`, `attention_mask` `[batch, time]` and what else the model
        takes, all int32 and all needed -> what the model gives, such as `logits`. Rows and lengths are free; nothing
        checks that ids and lengths are in range. It needs LiteRT's own operations alone, and what it gives was compared
        with what the model gives before the file appears.

        Args:
            path: the file to write.
            overwrite: whether a file that exists is replaced.

        Returns:
            The path.

        Raises:
            ValueError: the model cannot be expressed in LiteRT's own operations, or has 2 GB of weights or more.
            FileExistsError: the file exists and `overwrite` is False.
        """
        from tfheads.serving.litert import export

        return export(self, path, overwrite)
