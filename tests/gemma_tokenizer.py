"""A small tokenizer of Gemma's kind, trained here: the same normalizer, pieces, byte fallback and special tokens."""
import json
import os

import tokenizers

# Gemma's conventions, in our words: the system's text goes before the first question, the assistant is called model,
# turns alternate, and whoever renders gets one <bos>
TEMPLATE = """{{ bos_token }}{% set said = namespace(first='') %}
{%- if messages[0]['role'] == 'system' %}{% set said.first = messages[0]['content'] + '\n\n' %}
{%- set messages = messages[1:] %}{% endif %}
{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{{- '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}
{{- (said.first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"]
SYMBOLS = ["[multimodal]", "<unused0>", *("\n" * n for n in range(1, 6)), *("▁" * n for n in range(2, 6)),
           "<table>", "</table>", "<s>", "</s>", "<h1>"]  # whole wherever they stand, but not special: this <s> is HTML


def train(texts, vocab_size=1000, beyond=True):
    """
    tokenizer.json as a dict, of exactly vocab_size tokens in its vocabulary; beyond: and one more, for images, as
    Gemma 3 1B has it, for which its embedding has no row.
    """
    learner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    learner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Split("▁", "merged_with_next")
    first = [*SPECIAL, *SYMBOLS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size - len(first), show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    order = first + sorted(learnt["vocab"], key=learnt["vocab"].get)
    order += [f"<unused{i}>" for i in range(1, 1 + vocab_size - len(order))]
    added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=i < 8)
             for i, t in enumerate([*SPECIAL, *SYMBOLS])]
    if beyond:
        added.append(added[0] | dict(id=vocab_size, content="<image_soft_token>"))
    runs = [[c * (n - 1), c] for c in "\n▁" for n in range(2, 6)]
    begin, text = dict(SpecialToken=dict(id="<bos>", type_id=0)), dict(Sequence=dict(id="A", type_id=0))
    return dict(
        version="1.0", truncation=None, padding=None, added_tokens=added,
        normalizer=dict(type="Replace", pattern=dict(String=" "), content="▁"),
        pre_tokenizer=dict(type="Split", pattern=dict(String=" "), behavior="MergedWithPrevious", invert=False),
        post_processor=dict(type="TemplateProcessing", single=[begin, text],
                            pair=[begin, text, dict(Sequence=dict(id="B", type_id=1))],
                            special_tokens={"<bos>": dict(id="<bos>", ids=[2], tokens=["<bos>"])}),
        decoder=dict(type="Sequence", decoders=[dict(type="Replace", pattern=dict(String="▁"), content=" "),
                                                dict(type="ByteFallback"), dict(type="Fuse")]),
        model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None,
                   fuse_unk=True, byte_fallback=True, ignore_merges=False,
                   vocab={t: i for i, t in enumerate(order)}, merges=runs + learnt["merges"]))


def save(spec, directory):
    """As a model directory on the hub has it: tokenizer.json and tokenizer_config.json with the template."""
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(spec, f, ensure_ascii=False)
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(tokenizer_class="GemmaTokenizer", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
                       unk_token="<unk>", mask_token="<mask>", add_bos_token=True, add_eos_token=False,
                       clean_up_tokenization_spaces=False, spaces_between_special_tokens=False,
                       image_token="<image_soft_token>", chat_template=TEMPLATE), f)
