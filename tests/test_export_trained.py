"""What was trained, as a Hugging Face folder: transformers loads it and goes on with the same tokens."""

from __future__ import annotations

import json

import pytest
import torch

from shared.distillation import DistillConfig, build_sft_examples, train_distillation
from shared.formats.checkpoints import export_hf, list_checkpoints
from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.grpo import GRPOConfig, GRPOTrainer
from shared.model.lora import merge_lora
from tests.small_models import VARIANTS, hf_model, our_model, small_tokenizer
from tests.small_policy import reward_even, weights

ROWS = [
    {"problem": f"What is the sum of {a} and {b}?", "answer": str(a + b), "content": f"The sum is \\boxed{{{a + b}}}."}
    for a in range(1, 6)
    for b in range(1, 6)
]
PROMPTS = ["The answer to the question", "Problem: What is the sum of 3 and 4?\nAnswer in \\boxed{}.\nAnswer:"]
FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def distilled(model, tokenizer, **settings):
    """The model after a few steps that change all that is trained."""
    examples = build_sft_examples(ROWS, tokenizer, prompt_style="direct", max_length=128)
    config = DistillConfig(**{"steps": 6, "learning_rate": 3e-3, "warmup": 0} | settings)
    return train_distillation(model, tokenizer, examples, config, progress=False)


def assert_transformers_agrees(folder, model, tokenizer, max_new_tokens=40):
    """All files are there, and from each prompt transformers writes what our model writes, and ends where it ends."""
    transformers = pytest.importorskip("transformers")
    assert {path.name for path in folder.iterdir()} >= FILES
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = generate(model, tokenizer, PROMPTS, max_new_tokens=max_new_tokens)
    for prompt, completion in zip(PROMPTS, ours, strict=True):
        inputs = their_tokenizer(prompt, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == tokenizer.encode(prompt)
        # Neither the end tokens nor greedy decoding are asked for here: they stand in generation_config.json.
        written = theirs.generate(**inputs, max_new_tokens=max_new_tokens)[0, inputs["input_ids"].shape[1] :]
        assert written.tolist() == completion.token_ids
    chat = [{"role": "user", "content": PROMPTS[0]}]
    expected = tokenizer.apply_chat_template(chat)
    assert their_tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == expected
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == list(tokenizer.stop_ids)


@pytest.mark.parametrize("adapters", [{}, {"lora_rank": 4, "lora_alpha": 16.0}], ids=["full", "lora"])
@pytest.mark.parametrize(
    "variant", ["qwen3-tied", "qwen3-untied", "qwen2-tied", "qwen2-untied", "llama-tied", "llama-untied"]
)
def test_a_distilled_model_of_each_family(tmp_path, variant, adapters):
    model, tokenizer = our_model(hf_model(variant)), small_tokenizer()
    before = weights(model)
    trained = merge_lora(distilled(model, tokenizer, **adapters).model)
    changed = [name for name, p in trained.named_parameters() if not torch.equal(p, before[name])]
    in_blocks = sum("qkv.weight" in name or "gate_up" in name for name in changed)
    assert in_blocks == 2 * trained.config.num_layers, "what is compared has been trained"
    export_hf(trained, tokenizer, tmp_path / "out")
    named = json.loads((tmp_path / "out" / "config.json").read_text())["model_type"]
    assert named == VARIANTS[variant][0]
    assert_transformers_agrees(tmp_path / "out", trained, tokenizer)


@pytest.mark.parametrize("adapters", [{}, {"lora_rank": 8}], ids=["full", "lora"])
def test_the_distilled_tiny_model(tmp_path, adapters):
    model, tokenizer = load_model("tiny")
    trained = merge_lora(distilled(model, tokenizer, **adapters).model)
    export_hf(trained, tokenizer, tmp_path / "out")
    assert_transformers_agrees(tmp_path / "out", trained, tokenizer)


def test_a_checkpoint_of_adapters_needs_no_merging(tmp_path):
    """The folder of a run is loaded by transformers as it is, beside what our training needs to go on."""
    model, tokenizer = our_model(hf_model("qwen3-tied")), small_tokenizer()
    trainer = distilled(model, tokenizer, lora_rank=4, out=str(tmp_path))
    assert_transformers_agrees(list_checkpoints(tmp_path)[-1], merge_lora(trainer.model), tokenizer)


def test_a_model_after_grpo(tmp_path):
    model, tokenizer = our_model(hf_model("llama-untied")), small_tokenizer()
    config = GRPOConfig(
        steps=2, prompts_per_step=2, group_size=4, max_new_tokens=8, learning_rate=3e-3, prompt_style="direct"
    )
    trainer = GRPOTrainer(model, tokenizer, ROWS, reward_even, config, progress=False)
    trainer.train()
    export_hf(trainer.model, tokenizer, tmp_path / "out")
    assert_transformers_agrees(tmp_path / "out", trainer.model, tokenizer)
