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

        The signatures, each with a dictionary as its answer:

        - `serving_default` of a causal language model: `text` `[batch]` -> `generated_text` (the text and what follows
          it) and `new_text`, with the options that are given here.
        - `generate`: the same with scalars `max_new_tokens`, `temperature` (0 takes the likeliest token), `top_k`
          (0 for no limit), `top_p` and `seed`.
        - `serving_default` of a masked language model: `text` `[batch]` -> `tokens`, `token_ids`, `scores` and
          `sequences`, each `[batch, masks, top_k]`, and `mask_count` `[batch]`; rows with fewer masks than others are
          filled up with "" and 0.
        - `fill_mask`: the same with `top_k` `[batch]`; rows that want fewer than others are filled up likewise.
        - `token_level` of every model: `input_ids`, `attention_mask` `[batch, time]`, `token_type_ids` where the model
          has segment types, an axis more where there are choices -> what the model gives, such as `logits`; without a
          tokenizer it is `serving_default` too.

        No signature needs an XLA compiler. Texts that are too long lose their beginning where text is generated, their
        end otherwise.

        Args:
            directory: the model's directory, which TensorFlow Serving watches; made if it does not exist.
            tokenizer: the model's tokenizer, or a directory or the id of a repository that holds it. It becomes part
                of the graph. None exports `token_level` alone.
            version: a whole number from 1, the name of the new directory.
            overwrite: whether a version that exists is replaced.
            options: of `serving_default`. Causal language model: `max_new_tokens` (64, or half of the model's positions
                if that is less), `min_new_tokens`, `eos_token_id`, and the options of `generate` that decide how
                tokens are found: `do_sample`, `num_beams`, `repetition_penalty`, `stop_strings`, ...; all else as in
                the model's generation config. The signature `generate` takes one token at a time. Masked language
                model: `top_k` (5).

        Returns:
            The new directory.

        Raises:
            ValueError: the tokenizer cannot run in the graph with exactly the same ids, or a bad option or version.
            FileExistsError: the version exists and `overwrite` is False.
        """
        from tfheads.serving.export import export

        return export(self, directory, tokenizer, version, overwrite, options)
