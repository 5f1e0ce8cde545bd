"""Models that read a source and write a target: their inputs, their labels, and pairs of two checkpoints."""

import json

import keras
import numpy as np
import pytest
import safetensors.numpy
import transformers

import tfheads
from tfheads.checkpoints.tensor_files import open_tensors

BERT = {
    "vocab_size": 41,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GPT2 = {"vocab_size": 31, "n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 12, "bos_token_id": 1}
GPT2 |= dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
SOURCE = np.random.RandomState(0).randint(3, 41, (2, 7))
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3])
LABELS = np.array([[5, 6, 7, 8], [9, 10, -100, -100]])


@pytest.fixture
def directories(tmp_path):
    encoder = tfheads.BertModel(transformers.BertConfig(**BERT), seed=1)
    decoder = tfheads.GPT2LMHeadModel(transformers.GPT2Config(**GPT2), seed=2)
    encoder.save_pretrained(str(tmp_path / "encoder"))
    decoder.save_pretrained(str(tmp_path / "decoder"))
    return str(tmp_path / "encoder"), str(tmp_path / "decoder")


@pytest.fixture
def model(directories):
    return tfheads.EncoderDecoderModel.from_encoder_decoder_pretrained(
        *directories, decoder_start_token_id=1, pad_token_id=0, seed=3
    )


@pytest.fixture(scope="module")
def unchanged():
    """A pair that no test changes."""
    decoder = transformers.GPT2Config(**GPT2)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**BERT), decoder, decoder_start_token_id=1, pad_token_id=0
    )
    return tfheads.EncoderDecoderModel(config, seed=3)


def test_two_checkpoints_become_one_model_and_new_cross_attention_is_said_once(directories, caplog):
    with caplog.at_level("WARNING", logger="tfheads"):
        model = tfheads.GPT2ForSequenceToSequence.from_encoder_decoder_pretrained(
            *directories, decoder_start_token_id=1, pad_token_id=0, decoder_resid_pdrop=0.3
        )
    said = [record.getMessage() for record in caplog.records if record.name == "tfheads"]
    assert len(said) == 1
    assert "crossattention" in said[0]
    assert model.config.decoder.resid_pdrop == 0.3
    assert model.config.decoder_start_token_id == 1
    encoder = tfheads.BertModel.from_pretrained(directories[0])
    decoder = tfheads.GPT2LMHeadModel.from_pretrained(directories[1])
    np.testing.assert_array_equal(
        model(input_ids=SOURCE, attention_mask=MASK, labels=LABELS).encoder_last_hidden_state,
        encoder(input_ids=SOURCE, attention_mask=MASK).last_hidden_state,
    )
    np.testing.assert_array_equal(model.backbone.token_table, decoder.backbone.token_table)
    cross = model.backbone.decoder.stack.blocks[0].cross_attention
    assert float(np.abs(cross.query.kernel.numpy()).max()) > 0
    assert model.backbone.bridge.kernel.shape == (16, 24)
    assert float(np.abs(model.backbone.bridge.kernel.numpy()).max()) > 0


def test_a_saved_pair_comes_back_whole(model, tmp_path):
    before = model(input_ids=SOURCE, attention_mask=MASK, labels=LABELS)
    model.save_pretrained(str(tmp_path / "pair"))
    again = tfheads.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "pair"))
    after = again(input_ids=SOURCE, attention_mask=MASK, labels=LABELS)
    np.testing.assert_array_equal(after.logits, before.logits)
    model.save(tmp_path / "pair.keras")
    loaded = keras.saving.load_model(tmp_path / "pair.keras")
    np.testing.assert_array_equal(loaded(input_ids=SOURCE, attention_mask=MASK, labels=LABELS).logits, before.logits)


def test_labels_give_the_decoder_its_inputs(model):
    derived = model(input_ids=SOURCE, attention_mask=MASK, labels=LABELS)
    given = model(
        input_ids=SOURCE,
        attention_mask=MASK,
        decoder_input_ids=[[1, 5, 6, 7], [1, 9, 10, 0]],
        decoder_attention_mask=[[1, 1, 1, 1], [1, 1, 1, 0]],
        labels=LABELS,
    )
    np.testing.assert_array_equal(derived.logits, given.logits)
    assert float(derived.loss) == float(given.loss)
    assert derived.logits.shape == (2, 4, 31)


def test_targets_may_begin_with_padding(model):
    """The first token is never hidden, else it would see what it is to predict."""
    model.config.decoder_start_token_id = 0
    changed = np.where(LABELS == 8, 20, LABELS)
    first, second = (model(input_ids=SOURCE, labels=labels).logits.numpy() for labels in (LABELS, changed))
    np.testing.assert_array_equal(first[:, :4], second[:, :4])
    changed = np.where(LABELS == 5, 20, LABELS)
    np.testing.assert_array_equal(first[:, :1], model(input_ids=SOURCE, labels=changed).logits.numpy()[:, :1])


def test_a_pair_learns_with_labels_among_the_inputs_or_apart(model):
    inputs = {"input_ids": SOURCE, "attention_mask": MASK}
    model.compile(optimizer=tfheads.AdamW(0.01), jit_compile=False)
    pooler = model.backbone.encoder_head.pooler.dense.kernel.numpy()
    losses = model.fit({**inputs, "labels": LABELS}, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    apart = model.evaluate(inputs, LABELS, verbose=0, return_dict=True)
    assert apart["loss"] == pytest.approx(float(model(**inputs, labels=LABELS).loss), abs=1e-5)
    np.testing.assert_array_equal(model.backbone.encoder_head.pooler.dense.kernel, pooler)
    predicted = model.predict({**inputs, "labels": LABELS}, verbose=0)
    np.testing.assert_allclose(predicted["logits"], model(**inputs, labels=LABELS).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"input_ids": SOURCE}, "give decoder_input_ids, or labels"),
        ({"input_ids": SOURCE, "labels": LABELS + 300}, "labels must be"),
        ({"input_ids": SOURCE, "labels": LABELS[0]}, "labels must have 2 axes"),
        ({"input_ids": SOURCE, "decoder_input_ids": np.ones((3, 4), int)}, "as many rows as the source, 2, got 3"),
        ({"input_ids": SOURCE, "decoder_input_ids": np.ones((2, 13), int)}, "decoder_input_ids must have at most 12"),
        ({"input_ids": SOURCE, "decoder_input_ids": [[31], [1]]}, "decoder_input_ids must be between 0 and 30, got 31"),
        ({"input_ids": SOURCE + 40, "labels": LABELS}, "input_ids must be between 0 and 40"),
        ({"input_ids": SOURCE, "labels": LABELS, "attention_mask": MASK[:, :3]}, "attention_mask must have the shape"),
        ({"input_ids": SOURCE, "labels": LABELS, "decoder_inputs": LABELS}, "did you mean 'decoder_input_ids'"),
        ({"decoder_input_ids": LABELS}, "give input_ids or inputs_embeds"),
    ],
)
def test_bad_inputs_are_one_sentence(unchanged, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        unchanged(**inputs)


def test_configs_that_cannot_be_are_one_sentence(model):
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        model(input_ids=SOURCE, labels=LABELS)
    config = transformers.EncoderDecoderConfig(
        encoder={"model_type": "bert", **BERT}, decoder={"model_type": "gpt2", **GPT2}
    )
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        tfheads.EncoderDecoderModel(config)
    config.decoder = transformers.DistilBertConfig()
    with pytest.raises(ValueError, match="family with cross-attention, got 'distilbert'"):
        tfheads.EncoderDecoderModel(config)


TINY = {
    "vocab_size": 41,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 20,
    "num_labels": 3,
    "pad_token_id": 1,
}
TEXTS = np.array([[0, 5, 6, 2, 7, 2], [0, 9, 2, 1, 1, 1]])


def test_a_text_is_classified_at_its_last_end_token_and_read_by_the_decoder_too():
    model = tfheads.BartForSequenceClassification(transformers.BartConfig(**TINY), seed=0)
    real = (TEXTS != 1).astype(int)
    output = model(input_ids=TEXTS, attention_mask=real)
    moved = np.array([[2, 0, 5, 6, 2, 7], [2, 0, 9, 2, 1, 1]])
    given = model(input_ids=TEXTS, attention_mask=real, decoder_input_ids=moved)
    np.testing.assert_array_equal(output.logits, given.logits)
    alone = model(input_ids=TEXTS[1:, :3])
    np.testing.assert_allclose(alone.logits[0], output.logits[1], atol=1e-5)
    model.compile(optimizer="adam", jit_compile=False)
    assert np.isfinite(model.fit({"input_ids": TEXTS, "labels": np.array([0, 2])}, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match="the end token 2 in every row"):
        model(input_ids=TEXTS[:, :2])
    with pytest.raises(ValueError, match="decoder_input_ids must have the shape of input_ids"):
        model(input_ids=TEXTS, decoder_input_ids=moved[:, :4])
    with pytest.raises(ValueError, match="give input_ids"):
        model(inputs_embeds=np.zeros((2, 4, 16), "float32"), decoder_input_ids=moved[:, :4])


def test_layers_that_would_be_skipped_are_an_error():
    with pytest.raises(ValueError, match="encoder_layerdrop and decoder_layerdrop must be 0.0"):
        tfheads.BartModel(transformers.BartConfig(**TINY, encoder_layerdrop=0.1))


def test_the_decoder_of_a_checkpoint_stands_alone(tmp_path):
    whole = tfheads.BartForConditionalGeneration(transformers.BartConfig(**TINY), seed=0)
    whole.save_pretrained(str(tmp_path))
    decoder = tfheads.AutoModelForCausalLM.from_pretrained(str(tmp_path))
    assert type(decoder).__name__ == "BartForCausalLM"
    memory = whole(input_ids=TEXTS, decoder_input_ids=TEXTS).encoder_last_hidden_state
    np.testing.assert_allclose(
        decoder(input_ids=TEXTS, encoder_hidden_states=memory).logits,
        whole(input_ids=TEXTS, decoder_input_ids=TEXTS).logits,
        atol=1e-5,
    )
    assert decoder.generate([[0, 5]], max_new_tokens=3).shape == (1, 5)


T5 = {
    "vocab_size": 41,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}


def test_a_t5_with_an_output_table_of_its_own_reads_checkpoints_with_and_without_it(tmp_path):
    model = tfheads.T5ForConditionalGeneration(transformers.T5Config(**T5), seed=0)
    model.save_pretrained(str(tmp_path / "whole"))
    again = tfheads.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "whole"))
    np.testing.assert_array_equal(
        again(input_ids=SOURCE, labels=LABELS).logits, model(input_ids=SOURCE, labels=LABELS).logits
    )
    encoder = tfheads.AutoModelForTextEncoding.from_pretrained(str(tmp_path / "whole"))
    np.testing.assert_array_equal(
        encoder(input_ids=SOURCE).last_hidden_state, model(input_ids=SOURCE, labels=LABELS).encoder_last_hidden_state
    )
    tfheads.T5Model.from_pretrained(str(tmp_path / "whole")).save_pretrained(str(tmp_path / "bare"))
    tied = tfheads.T5ForConditionalGeneration.from_pretrained(str(tmp_path / "bare"))
    np.testing.assert_array_equal(tied.head.decoder.kernel, np.transpose(tied.backbone.token_table))


def test_t5_does_not_guess_what_its_decoder_reads():
    model = tfheads.T5Model(transformers.T5Config(**T5), seed=0)
    with pytest.raises(ValueError, match="give decoder_input_ids"):
        model(input_ids=SOURCE)


MARIAN = {**{name: value for name, value in TINY.items() if name != "num_labels"}, "vocab_size": 41}
MARIAN |= {"eos_token_id": 0, "pad_token_id": 40, "decoder_start_token_id": 40, "scale_embedding": True}


def tensors(directory) -> dict:
    return safetensors.numpy.load_file(directory / "model.safetensors")


def test_sines_are_computed_where_a_checkpoint_lacks_them_and_read_where_it_has_them(tmp_path, caplog):
    model = tfheads.MarianMTModel(transformers.MarianConfig(**MARIAN), seed=0)
    assert not {id(variable) for variable in model.trainable_variables} & {
        id(one.embeddings.position.embeddings) for one in (model.backbone.encoder, model.backbone.decoder)
    }
    model.save_pretrained(tmp_path / "translates")
    assert not [name for name in tensors(tmp_path / "translates") if "embed_positions" in name]
    with caplog.at_level("WARNING", logger="tfheads"):
        bare = tfheads.MarianModel.from_pretrained(tmp_path / "translates")
        decoder = tfheads.MarianForCausalLM.from_pretrained(tmp_path / "translates")
    assert not caplog.records and not bare.new_weights and not decoder.new_weights
    inputs = {"input_ids": SOURCE, "attention_mask": MASK, "decoder_input_ids": [[40, 5, 6], [40, 7, 8]]}
    made = bare(**inputs).last_hidden_state.numpy() @ model.backbone.token_table.numpy().T
    np.testing.assert_allclose(model(**inputs).logits, made, atol=1e-5)
    bare.save_pretrained(tmp_path / "bare")
    written = tensors(tmp_path / "bare")
    first = np.array([[0.0] * 8 + [1.0] * 8], "float32")  # sines, then cosines
    for side in ("encoder", "decoder"):
        np.testing.assert_array_equal(written[f"{side}.embed_positions.weight"][:1], first)
    written["encoder.embed_positions.weight"][3] *= -1.0
    safetensors.numpy.save_file(written, tmp_path / "bare" / "model.safetensors")
    other = tfheads.MarianModel.from_pretrained(tmp_path / "bare")(**inputs).encoder_last_hidden_state
    before = bare(**inputs).encoder_last_hidden_state
    assert np.abs(other[:, 3] - before[:, 3]).max() > 0.1


def test_marians_decoder_multiplies_given_vectors_too():
    model = tfheads.MarianModel(transformers.MarianConfig(**MARIAN), seed=0)
    ids, table = np.array([[40, 5, 6], [40, 7, 8]]), model.backbone.token_table.numpy()
    expected = model(input_ids=SOURCE[:, :4], decoder_input_ids=ids).last_hidden_state
    given = model(inputs_embeds=table[SOURCE[:, :4]] * 4.0, decoder_inputs_embeds=table[ids]).last_hidden_state
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_settings_of_generation_in_an_old_config_count(tmp_path):
    model = tfheads.MarianMTModel(transformers.MarianConfig(**MARIAN), seed=0)
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    values = json.loads((tmp_path / "config.json").read_text())
    old = {"bad_words_ids": [[40]], "num_beams": 4, "max_length": 9}
    (tmp_path / "config.json").write_text(json.dumps({**values, **old}))
    again = tfheads.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert {name: getattr(again.generation_config, name) for name in old} == old
    settings = {"bad_words_ids": [[40]], "num_beams": 4, "max_length": 9}
    made = again.generate(SOURCE, attention_mask=MASK, jit_compile=False)
    assert made.tolist() == model.generate(SOURCE, attention_mask=MASK, jit_compile=False, **settings).tolist()
    assert made.shape[1] <= 9 and (made[:, 0] == 40).all()


def test_a_vocabulary_of_its_own_needs_a_table_of_its_own():
    with pytest.raises(ValueError, match="decoder_vocab_size must be vocab_size, 41, unless share_encoder"):
        tfheads.MarianMTModel(transformers.MarianConfig(**MARIAN, decoder_vocab_size=39))


@pytest.mark.parametrize(("tied", "logits"), [(True, 30), (False, 40)])
def test_a_decoder_alone_has_its_own_number_of_tokens(tied, logits, tmp_path):
    """As PyTorch saves it: `embed_tokens` has the decoder's rows, an output table of its own the encoder's."""
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    config = transformers.MarianConfig(
        vocab_size=40, decoder_vocab_size=30, pad_token_id=0, tie_word_embeddings=tied, is_decoder=True, **sizes
    )
    ids = np.arange(6)[None]
    model = tfheads.MarianForCausalLM.from_config(config, seed=0)
    assert model(ids).logits.shape[-1] == logits
    model.save_pretrained(tmp_path)
    with open_tensors(tmp_path) as tensors:
        assert tuple(tensors.shape("model.decoder.embed_tokens.weight")) == (30, 16)
        assert ("lm_head.weight" in tensors.names()) is not tied
    again = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)
