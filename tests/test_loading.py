"""Loading models from folders, files and the hub, and writing them for other libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.formats import loading
from shared.formats.checkpoints import export_hf
from shared.formats.hf_format import config_from_hf, config_to_hf
from shared.formats.loading import load_model
from shared.formats.weights import build_model, save_weights_file
from shared.model.fast import speed_up
from shared.model.transformer import ModelConfig
from shared.tiny.config import TINY_CONFIG
from tests.small_models import VARIANTS, hf_model, our_model, random_ids, small_backend, small_tokenizer

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def hf_folder(folder, variant="qwen3-tied", **options):
    """A folder as transformers writes it, with our small tokenizer; returns transformers' model."""
    hf = hf_model(variant)
    hf.save_pretrained(folder, **options)
    small_tokenizer().save(folder)
    return hf


def edit_config(folder, remove=(), **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in remove}), encoding="utf-8")


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def assert_same(model, hf):
    ids = random_ids(2, 30)
    torch.testing.assert_close(model(ids), hf(ids).logits, **TOLERANCE)


# --- Hugging Face folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_folder_written_by_transformers(tmp_path, variant):
    hf = hf_folder(tmp_path, variant)
    model, tokenizer = load_model(tmp_path, device="cpu")
    assert_same(model, hf)
    assert not model.training
    assert tokenizer.stop_ids == (0, 2)[: len(tokenizer.stop_ids)]


def test_sharded_folder(tmp_path):
    hf = hf_folder(tmp_path, "llama-untied", max_shard_size="60KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert_same(load_model(tmp_path, device="cpu")[0], hf)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"{shards[1].name} is missing: download"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_as_transformers_4_and_5_write_it(variant):
    content = hf_model(variant).config.to_dict()
    expected = config_from_hf(content)
    family, changes = VARIANTS[variant]
    base = changes.get("rope_theta", 10_000.0)
    assert expected.rope_base == base
    rope = {"rope_type": "default", "rope_theta": base}
    content.pop("rope_parameters")
    for spelling in ({"rope_parameters": rope}, {"rope_theta": base, "rope_scaling": None}):
        assert config_from_hf(content | spelling) == expected
    assert config_from_hf(content | {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}).rope_base == 77.0
    silent = {name: value for name, value in content.items() if name != "head_dim"}
    assert config_from_hf(silent).head_dim == (128 if family == "qwen3" else 16)


def test_config_names_the_family_by_model_type_if_by_nothing_else():
    content = hf_model("qwen2-tied").config.to_dict() | {"architectures": None}
    assert config_from_hf(content).qkv_bias


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["Gemma3ForCausalLM"]}, "Gemma3ForCausalLM is not supported"),
        ({"architectures": None, "model_type": None}, "None is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "scales its RoPE"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "scales its RoPE"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "scales its RoPE"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "scales its RoPE"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "scales its RoPE"),
        ({"use_sliding_window": True, "sliding_window": 64}, "sliding-window attention"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
        ({"attention_bias": True}, "a bias in attention"),
        ({"mlp_bias": True}, "a bias in the feed-forward"),
        ({"hidden_act": "gelu"}, "activation gelu"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_key_value_heads": 3}, "must be a multiple"),
    ],
)
def test_what_would_give_wrong_numbers_is_refused(changes, message):
    content = hf_model("qwen3-tied").config.to_dict()
    config_from_hf(content)
    with pytest.raises(ValueError, match=message):
        config_from_hf(content | changes)


def test_sliding_window_that_is_switched_off_is_accepted():
    content = hf_model("qwen2-tied").config.to_dict() | {"use_sliding_window": False, "sliding_window": 32}
    config_from_hf(content)


# --- tensors that do not fit --------------------------------------------------------------------------------

NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NORM), f"lacks {NORM}"),
        (lambda t: t.update(spare=torch.ones(2)), "has the unexpected spare"),
        (lambda t: t.update({NORM: torch.ones(63)}), rf"{NORM} has the shape \(63,\)"),
        (lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.ones(95, 64)}), r"\(95, 64\).*\(96, 64\)"),
        (lambda t: t.update({"lm_head.weight": torch.ones(320, 64)}), "a head that differs"),
        (lambda t: t.clear(), "and 31 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    hf_folder(tmp_path)
    edit_weights(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, device="cpu")


def test_tensors_that_say_nothing_new_are_accepted(tmp_path):
    hf = hf_folder(tmp_path)

    def repeat(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)

    edit_weights(tmp_path, repeat)
    assert_same(load_model(tmp_path, device="cpu")[0], hf)


def test_heads_in_another_order_of_sizes_are_noticed():
    """The fused projection would have the right number of rows in all, and wrong heads."""
    hf = hf_model("qwen3-tied")
    config = config_from_hf(hf.config.to_dict())
    swapped = hf.state_dict()
    for layer in range(3):
        q, k = (f"model.layers.{layer}.self_attn.{n}_proj.weight" for n in "qk")
        swapped[q], swapped[k] = swapped[k], swapped[q]
    with pytest.raises(ValueError, match="q_proj"):
        build_model(config, swapped)


# --- damaged and foreign files ------------------------------------------------------------------------------


def test_truncated_weights(tmp_path):
    hf_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 100, len(whole) - 1000):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or cut short .* download"):
            load_model(tmp_path, device="cpu")


def test_a_stale_index_beside_the_weights(tmp_path):
    """A model saved in one file over one in shards: the index is of the old one. transformers takes the file too."""
    hf_folder(tmp_path, "llama-untied", max_shard_size="60KB")
    hf = hf_model("llama-untied")
    hf.get_parameter("model.norm.weight").data += 1
    save_file(hf.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same(load_model(tmp_path, device="cpu")[0], hf)


def test_folder_with_pickled_weights_only(tmp_path):
    hf_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only as pytorch_model\.bin.*can run code"):
        load_model(tmp_path, device="cpu")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_model(tmp_path, device="cpu")


def test_folder_without_a_readable_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing: name a folder that holds a model"):
        load_model(tmp_path, device="cpu")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_model(tmp_path, device="cpu")


def test_file_of_another_kind(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.onnx is no model file: name a folder"):
        load_model(tmp_path / "model.onnx", device="cpu")


# --- export -------------------------------------------------------------------------------------------------


def exported_pair(model, folder):
    """What transformers makes of an export."""
    transformers = pytest.importorskip("transformers")
    export_hf(model, small_tokenizer(), folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, transformers.AutoTokenizer.from_pretrained(folder)


def greedy(model, ids, count):
    cache, new = model.new_cache(), ids
    for _ in range(count):
        new = model(new, cache)[:, -1:].argmax(-1)
        ids = torch.cat((ids, new), dim=1)
    return ids.tolist()


@pytest.mark.parametrize("variant", ["qwen3-tied", "qwen3-untied", "qwen2-untied", "llama-untied", "llama-tied"])
def test_export_is_what_transformers_reads(tmp_path, variant):
    model = our_model(hf_model(variant))
    theirs, tokenizer = exported_pair(model, tmp_path / "out")
    assert type(theirs).__name__.lower().startswith(VARIANTS[variant][0])
    assert_same(model, theirs)
    text = "The answer is <think>no</think> 12."
    ids = torch.tensor([small_tokenizer().encode(text)])
    assert tokenizer(text)["input_ids"] == ids[0].tolist()
    expected = theirs.generate(ids, max_new_tokens=24, eos_token_id=None, pad_token_id=0)
    assert greedy(model, ids, 24) == expected.tolist()
    again, read_tokenizer = load_model(tmp_path / "out", device="cpu")
    assert again.config == model.config
    assert torch.equal(again(ids), speed_up(model)(ids))
    assert read_tokenizer.stop_ids == (0, 2)


def test_export_carries_end_tokens_and_chat_format(tmp_path):
    model = our_model(hf_model("qwen3-tied"))
    theirs, tokenizer = exported_pair(model, tmp_path / "out")
    assert theirs.generation_config.eos_token_id == [0, 2]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)
    chat = [{"role": "user", "content": "Hi"}]
    expected = small_tokenizer().apply_chat_template(chat)
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == expected


@pytest.mark.parametrize("kept", ["rope_theta", "rope_parameters"])
def test_exported_config_is_read_by_either_spelling(tmp_path, kept):
    """transformers 4 knows `rope_theta` and `torch_dtype`, transformers 5 `rope_parameters` and `dtype`."""
    transformers = pytest.importorskip("transformers")
    model = our_model(hf_model("qwen3-tied"))
    export_hf(model, small_tokenizer(), tmp_path / "out")
    remove = {"rope_theta": ("rope_parameters", "dtype"), "rope_parameters": ("rope_theta", "torch_dtype")}[kept]
    edit_config(tmp_path / "out", remove=remove)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.config.rope_parameters["rope_theta"] == 1_000_000.0
    assert theirs.dtype == torch.float32
    assert_same(model, theirs)


def test_export_in_bfloat16(tmp_path):
    model = our_model(hf_model("qwen3-tied")).to(torch.bfloat16)
    export_hf(model, small_tokenizer(), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert content["dtype"] == content["torch_dtype"] == "bfloat16"
    again, _ = load_model(tmp_path / "out", device="cpu", dtype="bfloat16")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_export_of_a_model_that_no_family_has():
    config = ModelConfig(8, 8, 8, 1, 2, 1, 4, qk_norm=True, qkv_bias=True)
    with pytest.raises(ValueError, match="both QK-norm and QKV bias"):
        config_to_hf(config, small_tokenizer(), torch.float32)


# --- the course's own models --------------------------------------------------------------------------------


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A folder of assets made on the spot, in place of the shipped one."""
    save_weights_file(tmp_path / "tiny-base.safetensors", our_model(hf_model("qwen3-tied")))
    small_backend().save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(loading, "ASSETS", tmp_path)
    return tmp_path


def test_tiny_as_shipped():
    model, tokenizer = load_model("tiny", device="cpu")
    assert model.config == TINY_CONFIG
    assert tokenizer.vocab_size == TINY_CONFIG.vocab_size
    ids = torch.tensor([tokenizer.encode("Problem: Compute 2+3.\nAnswer:")])
    assert torch.isfinite(model(ids)).all()


def test_the_teacher_as_shipped_is_the_tiny_model_with_twice_the_layers():
    model, tokenizer = load_model("tiny-teacher", device="cpu")
    assert model.config == replace(TINY_CONFIG, num_layers=2 * TINY_CONFIG.num_layers)
    assert model.dtype == torch.float32
    assert tokenizer.vocab_size == TINY_CONFIG.vocab_size


def test_weights_file_of_ours(assets):
    expected = speed_up(our_model(hf_model("qwen3-tied")))
    for name in ("tiny", assets / "tiny-base.safetensors"):
        model, tokenizer = load_model(name, device="cpu")
        assert model.config == expected.config
        assert torch.equal(model(random_ids(1, 9)), expected(random_ids(1, 9)))
        assert model.head.weight is model.embedding.weight
        assert tokenizer.stop_ids == (0, 2)
        assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}]).endswith("assistant\n")


def test_tiny_random_is_always_the_same_and_leaves_the_random_state_alone(assets):
    (assets / "tiny-base.safetensors").unlink()
    state = torch.get_rng_state()
    first, _ = load_model("tiny-random", device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second, tokenizer = load_model("tiny-random", device="cpu")
    assert first.config == TINY_CONFIG
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training
    assert tokenizer.eos_id == 0


def test_tiny_random_in_transformers(assets, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, tokenizer = load_model("tiny-random", device="cpu")
    export_hf(model, tokenizer, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same(model, theirs)


def test_missing_and_truncated_assets(assets):
    path = assets / "tiny-base.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"tiny-base\.safetensors is damaged .*git checkout -- shared/assets"):
        load_model("tiny", device="cpu")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-base\.safetensors is missing: .*git checkout"):
        load_model("tiny", device="cpu")
    (assets / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing: .*git checkout"):
        load_model("tiny-random", device="cpu")


def test_weights_file_without_or_with_another_configuration(assets):
    path = assets / "tiny-base.safetensors"
    tensors = load_file(path)
    for metadata in ({}, {"config": "{"}, {"config": '{"layers": 3}'}):
        save_file(dict(tensors), assets / "other.safetensors", metadata)
        with pytest.raises(ValueError, match="no configuration of ours"):
            load_model(assets / "other.safetensors", device="cpu")
    config = json.dumps(TINY_CONFIG.__dict__)
    save_file(dict(tensors), assets / "other.safetensors", {"config": config})
    with pytest.raises(ValueError, match="does not fit its configuration"):
        load_model(assets / "other.safetensors", device="cpu")


# --- names, devices, number formats -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "close"), [("qwen3-0.6-base", "qwen3-0.6b-base"), ("tinny", "tiny")])
def test_unknown_name_suggests_a_known_one(name, close):
    with pytest.raises(ValueError, match=rf"did you mean {close}\?.*qwen3-0\.6b-base, .*smollm2-135m"):
        load_model(name, device="cpu")


def test_unknown_path_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"no model or path .*give the path of a model folder"):
        load_model(tmp_path / "nothing", device="cpu")


def test_devices_and_number_formats(assets):
    model, _ = load_model("tiny", device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert load_model("tiny", "cpu", torch.float16)[0].dtype == torch.float16
    assert load_model("tiny", "cpu")[0].dtype == torch.float32
    assert loading.choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert loading.choose_dtype("auto", torch.device("mps")) == torch.float32
    with pytest.raises(ValueError, match="'tpu' is not available here: choose auto"):
        load_model("tiny", device="tpu")
    with pytest.raises(ValueError, match="dtype int8 is not known: choose auto"):
        load_model("tiny", device="cpu", dtype="int8")


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_takes_bfloat16_only_where_the_gpu_computes_in_it(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert str(loading.choose_dtype("auto", torch.device("cuda"))) == f"torch.{dtype}"


def test_auto_leaves_a_folder_in_fp32_as_it_is(tmp_path, monkeypatch):
    """In bfloat16, most weights of a model after a short training are those from before it."""
    model = our_model(hf_model("qwen3-tied"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(loading, "choose_device", lambda name: SimpleNamespace(type="cuda", __str__=lambda: "cuda"))
    asked = []
    monkeypatch.setattr(loading, "load_hf_folder", lambda path, device, dtype: asked.append(dtype) or (model, None))
    for dtype in (torch.float32, torch.bfloat16):
        export_hf(model.to(dtype), small_tokenizer(), tmp_path / str(dtype))
        load_model(tmp_path / str(dtype))
    load_model(tmp_path / "torch.float32", dtype="bfloat16")
    assert asked == [torch.float32, torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert loading.choose_device("auto").type == chosen


def test_the_tiny_model_stays_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, _ = load_model("tiny-random")
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_quantised_weights_are_refused(tmp_path):
    model, tokenizer = load_model("tiny-random")
    export_hf(model, tokenizer, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match="quantised weights are not supported"):
        load_model(tmp_path / "model")
