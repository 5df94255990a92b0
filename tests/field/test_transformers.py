"""Models of transformers with its own collators, and adapters of peft."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from landscape_test_field.harness import Wraps, check
from landscape_test_support.data import Items
from landscape_test_support.kind import Kind, loader

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
tokenizers = pytest.importorskip("tokenizers")

WORDS = 16


def collator() -> Any:
    """Return the padding collator of transformers over a tokenizer of sixteen words, made here."""
    vocabulary = {f"w{index}": index for index in range(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w1"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    return transformers.DataCollatorWithPadding(tokenizer)


def sentences(n: int = 20) -> list[dict[str, Any]]:
    """Return tokens of different lengths with a label."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 7, (n,), generator=generator).tolist()
    drawn = [torch.randint(2, WORDS, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": tokens, "attention_mask": [1] * len(tokens), "label": sum(tokens) % 3} for tokens in drawn]


def padded(n: int = 20, length: int = 6) -> list[dict[str, torch.Tensor]]:
    """Return tokens whose ends are padding, ignored among the labels."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, WORDS, (n, length), generator=generator)
    kept = torch.arange(length) < torch.randint(3, length + 1, (n, 1), generator=generator)
    rows = zip(tokens, kept, strict=True)
    return [
        {"input_ids": row, "attention_mask": mask.long(), "labels": row.masked_fill(~mask, -100)} for row, mask in rows
    ]


def targets(batch: Any) -> float:
    """Count the targets of a causal model: it predicts all tokens but the first."""
    return float((batch["labels"][:, 1:] != -100).sum())


def all_targets(batch: Any) -> float:
    return float((batch["labels"] != -100).sum())


def size(batch: Any) -> int:
    return len(batch["labels"])


def test_bert_classifier_with_its_collator(tmp_path):
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=3,
    )
    made = Kind(
        "BERT",
        "",
        lambda: Wraps(transformers.BertForSequenceClassification(config)),
        lambda: loader(Items(sentences()), collate_fn=collator()),
        count=size,
    )
    check(made, tmp_path)


class Counts(Wraps):
    """Gives the model the number of its targets, which divides a sum then."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        n = (batch["labels"][:, 1:] != -100).sum()
        return self.model(**batch, num_items_in_batch=n).loss


@pytest.mark.parametrize("wrapper", [Wraps, Counts])
def test_gpt2(tmp_path, wrapper):
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    made = Kind(
        "GPT-2",
        "",
        lambda: wrapper(transformers.GPT2LMHeadModel(config)),
        lambda: loader(Items(padded())),
        count=size,
        share=targets,
    )
    check(made, tmp_path)


def llama() -> Any:
    """Return a Llama with low-rank adapters."""
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
    )
    adapters = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    return Wraps(peft.get_peft_model(transformers.LlamaForCausalLM(config), adapters))


def test_llama_with_adapters(tmp_path):
    made = Kind("Llama", "", llama, lambda: loader(Items(padded())), count=size, share=targets)
    check(made, tmp_path)


def test_t5(tmp_path):
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    made = Kind(
        "T5",
        "",
        lambda: Wraps(transformers.T5ForConditionalGeneration(config)),
        lambda: loader(Items(padded())),
        count=size,
        share=all_targets,
    )
    check(made, tmp_path)


def test_vit(tmp_path):
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=3,
    )
    pictures = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    items = [{"pixel_values": picture, "labels": index % 3} for index, picture in enumerate(pictures)]
    made = Kind(
        "ViT",
        "",
        lambda: Wraps(transformers.ViTForImageClassification(config)),
        lambda: loader(Items(items)),
        count=size,
    )
    check(made, tmp_path)


def test_mamba(tmp_path):
    config = transformers.MambaConfig(vocab_size=WORDS, hidden_size=6, state_size=2, num_hidden_layers=1, conv_kernel=2)
    items = [{key: item[key] for key in ("input_ids", "labels")} for item in padded()]
    made = Kind(
        "Mamba",
        "",
        lambda: Wraps(transformers.MambaForCausalLM(config)),
        lambda: loader(Items(items)),
        count=size,
        share=targets,
    )
    check(made, tmp_path)
