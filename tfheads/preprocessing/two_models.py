"""Marian's tokenizer inside the graph: two SentencePiece models around one vocabulary, and codes of languages."""

import sentencepiece
import tensorflow as tf
import transformers
from sentencepiece import sentencepiece_model_pb2

from tfheads.preprocessing import code_points, decoders, description, post_processors
from tfheads.preprocessing.added_tokens import NO_TOKEN, AddedTokens, Segments
from tfheads.preprocessing.aligned_text import Tokens
from tfheads.preprocessing.graph_tokenizers import GraphTokenizer
from tfheads.preprocessing.sentencepieces import SentencePieces
from tfheads.preprocessing.unigram import Unigram

MARK = "\u2581"
LANGUAGE = r"(?s)(>>.*?<<)(.*)"  # a code such as >>fr<< at the beginning of a text, and what follows
OUTER_SPACE = "[{}]*".format("".join(rf"\x{{{point:X}}}" for point in range(0x3001) if chr(point).isspace()))


class TwoModelTokenizer(GraphTokenizer):
    """A tokenizer of transformers' class MarianTokenizer; see `graph_tokenizer`.

    A text becomes pieces by the model of the source language, and the pieces ids by the vocabulary. Ids become text by
    the model that the tokenizer itself takes: that of the source where both languages share the vocabulary. It knows no
    offsets.

    Raises:
        ValueError: when it has an option that cannot be expressed exactly in the graph.
    """

    knows_offsets = False

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase):
        tf.Module.__init__(self)
        if tokenizer.sp_model_kwargs:
            raise description.refuse(f"sp_model_kwargs={tokenizer.sp_model_kwargs}")
        if tokenizer.split_special_tokens:
            raise description.refuse("split_special_tokens=True")
        self._added = _added_tokens(tokenizer)
        self._pieces = SourceModel(tokenizer.spm_source)
        eos = post_processors.Added((tokenizer.eos_token_id,))
        text, pair = (post_processors.Sequence(number) for number in (post_processors.TEXT, post_processors.PAIR))
        template, both = post_processors.Template((text, eos)), post_processors.Template((text, pair, eos))
        self._post_processor = post_processors.PostProcessor(template, both, template.bare(), both.bare())
        names = tokenizer.decoder | {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self.vocabulary_size = max(names) + 1
        tokens = [names.get(i) for i in range(self.vocabulary_size)]
        self.decoder = TwoModelDecoder(tokenizer, tokens)
        with tf.init_scope():
            keys = tf.constant([token.encode() for token in tokenizer.encoder])
            values = tf.constant(list(tokenizer.encoder.values()), tf.int32)
            unknown = tokenizer.encoder[tokenizer.unk_token]
            self._ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), unknown)
            self.id_to_token = tf.constant([token or "" for token in tokens])
        self.pad_token_id = tokenizer.pad_token_id
        self.padding_side, self.truncation_side = tokenizer.padding_side, tokenizer.truncation_side

    def _tokens(self, strings: tf.Tensor, with_places: bool) -> Tokens:
        """The tokens of texts without what is added around them `[batch, (tokens)]`."""
        strings = tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="replace")
        rows = tf.size(strings, tf.int64)
        segments = self._added(Segments(strings, tf.fill([rows], NO_TOKEN), tf.range(rows + 1)))
        is_text = segments.ids == NO_TOKEN
        texts = tf.where(is_text, segments.strings, "")
        coded = tf.strings.regex_full_match(texts, LANGUAGE)
        codes = self._ids.lookup(tf.strings.regex_replace(texts, f"^{LANGUAGE}$", r"\1"))
        texts = tf.where(coded, tf.strings.regex_replace(texts, f"^{LANGUAGE}$", r"\2"), texts)
        first = tf.where(is_text, codes, segments.ids)
        alone = coded | ~is_text
        splits = code_points.splits_from_lengths(tf.cast(alone, tf.int64))
        pieces = self._pieces(texts)
        ids = pieces.with_values(self._ids.lookup(pieces.values))
        ids = tf.concat([code_points.ragged(tf.boolean_mask(first, alone), splits), ids], axis=1)
        return Tokens(code_points.ragged(ids.values, tf.gather(ids.row_splits, segments.row_splits)))


class SourceModel(tf.Module):
    """A SentencePiece model: texts to pieces.

    TensorFlow Text's operation chooses otherwise among equally good segmentations than the SentencePiece library that
    the tokenizer has. So it normalises only, by a model for which every text is one unknown piece.

    Raises:
        ValueError: when the model is not a Unigram one, or has pieces for bytes or defined by its user.
    """

    def __init__(self, model: sentencepiece.SentencePieceProcessor):
        super().__init__()
        proto = sentencepiece_model_pb2.ModelProto.FromString(model.serialized_model_proto())
        if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
            raise description.refuse("a SentencePiece model that is not a Unigram one")
        kinds = proto.SentencePiece
        if any(piece.type in (kinds.BYTE, kinds.USER_DEFINED) for piece in proto.pieces):
            raise description.refuse("a SentencePiece model with pieces for bytes or defined by its user")
        vocabulary = [[piece.piece, piece.score] for piece in proto.pieces if piece.type == kinds.NORMAL]
        self.unigram = Unigram({"vocab": vocabulary, "unk_id": len(vocabulary)}, tf.float32)
        unknown = next(piece for piece in proto.pieces if piece.type == kinds.UNKNOWN)
        del proto.pieces[:]
        proto.pieces.append(unknown)
        roles = {"unk_id": 0, "bos_id": -1, "eos_id": -1, "pad_id": -1, "vocab_size": 1}
        for role, number in roles.items():
            setattr(proto.trainer_spec, role, number)
        proto.trainer_spec.model_type = proto.trainer_spec.CHAR
        self.normalizer = SentencePieces(proto.SerializeToString(), out_type=tf.string)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """The pieces of texts `[texts, (pieces)]`."""
        text = code_points.decode(tf.strings.reduce_join(self.normalizer.tokenize(texts), axis=-1))
        found = self.unigram.segmented(text)
        splits = tf.concat([found.starts, [tf.size(text.values)]], 0)
        pieces = code_points.encode(code_points.ragged(text.values, tf.cast(splits, tf.int64)))
        return code_points.ragged(pieces, found.splits)


class TwoModelDecoder(tf.Module):
    """Ids to texts, as a SentencePiece model joins pieces: special tokens stand alone, with a space behind each."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, tokens: list[str | None]):
        super().__init__()
        model = tokenizer.spm_target if tokenizer.separate_vocabs else tokenizer.spm_source
        if any(model.is_byte(i) for i in range(model.get_piece_size())):
            raise description.refuse("a SentencePiece model with pieces for bytes")
        special = set(tokenizer.all_special_tokens)
        begin = len(model.decode_pieces(["a"]))
        first, following = [], []
        for token in tokens:
            if token is None or token in special:
                first.append("" if token is None else f"{token} ")
                following.append(first[-1])
            else:
                first.append(model.decode_pieces([token]))
                following.append(model.decode_pieces(["a", token])[begin:])
        # Whether spaces at the beginning are dropped, however many there are.
        self.drops_all = model.decode_pieces([MARK, f"{MARK}a"]) == "a"
        ids = set(tokenizer.all_special_ids)
        self.edits = [(rf"^{OUTER_SPACE}", ""), (rf"{OUTER_SPACE}$", "")]
        self.edits += decoders.clean_up_edits(bool(tokenizer.clean_up_tokenization_spaces))
        with tf.init_scope():
            self.first = tf.constant([string.replace(MARK, " ") for string in first])
            self.following = tf.constant([string.replace(MARK, " ") for string in following])
            self.exists = tf.constant([token is not None for token in tokens])
            self.left_out = tf.constant([i in ids for i in range(len(tokens))])
            self.alone = tf.constant([token in special for token in tokens])

    def __call__(self, ids: tf.RaggedTensor, skip_special_tokens: bool = True) -> tf.Tensor:
        """The texts `[batch]` of ids `[batch, (length)]`; ids without a token are left out."""
        known = (ids.values >= 0) & (ids.values < tf.size(self.exists))
        wanted = self.exists & ~self.left_out if skip_special_tokens else self.exists
        kept = known & tf.gather(wanted, tf.where(known, ids.values, 0))
        ids = tf.ragged.boolean_mask(ids, ids.with_values(kept))
        strings = tf.where(
            self._at_beginning(ids), tf.gather(self.first, ids.values), tf.gather(self.following, ids.values)
        )
        texts = tf.strings.reduce_join(ids.with_values(strings), axis=-1)
        for found, replacement in self.edits:
            texts = tf.strings.regex_replace(texts, found, replacement)
        return texts

    def _at_beginning(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """True for ids before which, since the last special token, there is no text `[ids]`."""
        size = tf.size(ids.values, tf.int64)
        row_begins = tf.scatter_nd(ids.row_splits[:, None], tf.ones_like(ids.row_splits), [size + 1])[:size] > 0
        alone = tf.gather(self.alone, ids.values)
        begins = row_begins | tf.concat([[False], alone[:-1]], 0)[:size]
        ends = ~alone & ((tf.gather(self.first, ids.values) != "") | (not self.drops_all))
        before = tf.cumsum(tf.cast(ends, tf.int32), exclusive=True)
        run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        return before == tf.gather(tf.boolean_mask(before, begins), run)


def _added_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> AddedTokens:
    """The finder of the added tokens, which the tokenizer looks for before everything else."""
    tokens = []
    for i, token in tokenizer.added_tokens_decoder.items():
        if token.lstrip or token.rstrip:
            raise description.refuse(f"added token {token.content!r} with lstrip or rstrip in a tokenizer of Python")
        tokens.append(
            {"id": i, "content": token.content, "lstrip": False, "rstrip": False, "single_word": token.single_word}
        )
    return AddedTokens(tokens, [token["content"] for token in tokens])
