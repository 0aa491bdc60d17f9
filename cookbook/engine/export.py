"""Merge a checkpoint into its base model: ``python -m cookbook.engine.export PATH OUTPUT``.

The output is a plain `transformers` model folder: weights, configuration, tokenizer and chat
template. It needs neither this engine nor `peft`. Checkpoint folders themselves are PEFT folders,
so without merging there is nothing to export.
"""

import argparse
import json
import os
import shutil
import sys
import uuid
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cookbook.engine.errors import UserError
from cookbook.engine.lora import UNEMBED, Adapter, LoraSpec, load_adapter
from cookbook.engine.store import Store, parse_path
from cookbook.engine.weights import resolve_model
from cookbook.errors import CookbookError
from cookbook.home import cookbook_home

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def export(path: str, output: Path, data_dir: Path, dtype: str = "float32") -> None:
    """Write the merged model of a checkpoint.

    Args:
        path: `tinker://` path of a checkpoint below `data_dir`.
        output: a folder that does not exist yet; it appears when it is complete.
        data_dir: the data directory of the engine that wrote the checkpoint.
        dtype: of the written weights. bfloat16 halves the size and rounds small changes away.
    """
    if output.exists():
        raise UserError(f"{output} exists already; name a new folder")
    store, ref = Store(data_dir), parse_path(path)
    manifest = store.load_manifest(ref)
    base = resolve_model(manifest["base_model"])
    adapter = load_adapter(store.folder(ref), LoraSpec(**manifest["lora"]), "cpu")
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for file in base.iterdir():
            if file.suffix in (".json", ".jinja", ".txt", ".model") and "index" not in file.name:
                shutil.copyfile(file, partial / file.name)
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        untie = bool(config.get("tie_word_embeddings")) and UNEMBED in adapter.pairs
        changes = {"tie_word_embeddings": False} if untie else {}
        changed = json.dumps({**config, **changes, "dtype": dtype}, indent=2)
        (partial / "config.json").write_text(changed, encoding="utf-8")
        tensors = merged(base, adapter, untie)
        written = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
        save_file(written, partial / "model.safetensors", metadata={"format": "pt"})
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def merged(base: Path, adapter: Adapter, untie: bool) -> dict[str, torch.Tensor]:
    """Return the base's tensors in float32, the adapter's changes added to them."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(base.glob("model*.safetensors")):
        tensors |= {name: tensor.float() for name, tensor in load_file(file).items()}
    if untie:
        tensors[HEAD] = tensors[EMBEDDING].clone()
    with torch.no_grad():
        for module, pair in adapter.pairs.items():
            tensors[f"{module}.weight"] += adapter.scale * (pair.b @ pair.a)
    return tensors


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.engine.export", description=__doc__)
    parser.add_argument("path", help="tinker://<run>/<segment>/<name>")
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--data-dir", type=Path, help="where the engine keeps its checkpoints")
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    options = parser.parse_args(arguments)
    try:
        data_dir = options.data_dir or cookbook_home() / "engine"
        export(options.path, options.output, data_dir, options.dtype)
    except (UserError, CookbookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
