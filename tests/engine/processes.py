"""A tiny model, engine processes of a test's own, and requests without the SDK."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from tinker.proto import tinker_public_pb2 as pb
from transformers import LlamaConfig, LlamaForCausalLM

START_TIMEOUT_S, STOP_TIMEOUT_S = 120, 20
CONTEXT = 128  # of the tiny model, in tokens
VOCABULARY = 512


def write_tiny_model(
    folder: Path, tokenizer_from: Path, vocabulary: int = VOCABULARY, context: int = CONTEXT
) -> None:
    """Write a random two-layer Llama that a laptop trains in milliseconds."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer_from / file, folder)


@dataclass
class EngineProcess:
    """A running `python -m cookbook.engine`."""

    process: subprocess.Popen[bytes]
    model: Path
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return self.ready["base_url"]

    @property
    def api_key(self) -> str:
        return self.ready["api_key"]

    @property
    def data_dir(self) -> Path:
        return self.log.with_name("data")

    def http(self, **headers: str) -> httpx.Client:
        """A plain HTTP client that has the key."""
        return http_client(self.base_url, **{"x-api-key": self.api_key, **headers})

    def stop(self, number: int | None = None) -> int:
        """Send a signal, or without one close standard input; return the exit code."""
        assert self.process.stdin
        if number is None:
            self.process.stdin.close()
        else:
            self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def end(self) -> None:
        """Make sure that nothing is left."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


ENGINE = ("-m", "cookbook.engine")


def start_engine(
    model: Path,
    folder: Path,
    *options: str,
    program: Sequence[str] = ENGINE,
    **environment: str,
) -> EngineProcess:
    """Start an engine whose data and log lie in `folder`, and wait until it is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "engine.log"
    arguments = ["--model", str(model), "--data-dir", str(folder / "data"), "--dtype", "float32"]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},  # it is a tiny model
        )
    assert process.stdout
    engine = EngineProcess(process, model, log)
    line = process.stdout.readline()
    if not line:
        engine.end()
        raise AssertionError(f"the engine did not start:\n{log.read_text()}")
    engine.ready = json.loads(line)
    return engine


def http_client(base_url: str, **headers: str) -> httpx.Client:
    """A client of the engine's routes, whatever proxies the environment names."""
    return httpx.Client(
        base_url=f"{base_url}/api/v1/", headers=headers, trust_env=False, timeout=60
    )


class RawRun:
    """A training run driven without the SDK: its own sequence numbers, sent in any order."""

    def __init__(self, http: httpx.Client, base_model: str, seed: int = 0) -> None:
        self.http = http
        self.session_id = post(http, "create_session")["session_id"]
        self.create = {
            "session_id": self.session_id,
            "model_seq_id": 0,
            "base_model": base_model,
            "lora_config": {"rank": 2, "seed": seed},
        }
        self.model_id = result(http, post(http, "create_model", **self.create))["model_id"]

    def forward_backward(
        self, seq_id: int, *rows: Sequence[int], forward_only: bool = False
    ) -> dict[str, Any]:
        """Send rows of tokens, each position predicting the next; return the submission's answer"""
        message = forward_backward_message(self.model_id, seq_id, rows)
        message.forward_only = forward_only
        return self.send_forward_backward(message)

    def send_forward_backward(self, message: pb.ForwardBackwardRequest) -> dict[str, Any]:
        """Send any message."""
        headers = {"content-type": "application/x-protobuf"}
        content = message.SerializeToString()
        answer = self.http.post("forward_backward", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def optim_step(self, seq_id: int, **adam: float) -> dict[str, Any]:
        """Send an optimiser step; its learning rate is 0.1 unless given."""
        return self.ordered("optim_step", seq_id, adam_params={"learning_rate": 0.1, **adam})

    def ordered(self, route: str, seq_id: int, **body: Any) -> dict[str, Any]:
        """Send any JSON training request."""
        return post(self.http, route, model_id=self.model_id, seq_id=seq_id, **body)

    def loss(self, seq_id: int, row: Sequence[int]) -> float:
        """The present loss of a row."""
        return result(self.http, self.forward_backward(seq_id, row, forward_only=True)).metrics[
            "loss:sum"
        ]


def forward_backward_message(
    model_id: str, seq_id: int, rows: Sequence[Sequence[int]]
) -> pb.ForwardBackwardRequest:
    """Cross-entropy on rows of tokens."""
    message = pb.ForwardBackwardRequest(model_id=model_id, seq_id=seq_id, loss_fn="cross_entropy")
    for row in rows:
        datum = message.data.add()
        datum.model_input.add().encoded_text.tokens = np.asarray(row[:-1], "<i4").tobytes()
        target = datum.loss_fn_inputs["target_tokens"]
        target.dense, target.dtype = np.asarray(row[1:], "<i8").tobytes(), pb.DTYPE_INT64
    return message


def checkpoint_folder(data_dir: Path, path: str) -> Path:
    """Where a `tinker://` path lies below an engine's data folder."""
    run_id, segment, name = path.removeprefix("tinker://").split("/")
    return data_dir / "runs" / run_id.replace(":", "_") / segment / name


def post(http: httpx.Client, route: str, **body: Any) -> dict[str, Any]:
    """Return the JSON answer of a request that must succeed."""
    answer = http.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def retrieve(http: httpx.Client, submitted: dict[str, Any], within_s: float = 60) -> httpx.Response:
    """Poll until the outcome of a submission is there."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        answer = http.post("retrieve_future", json={"request_id": submitted["request_id"]})
        if answer.status_code != 408:
            return answer
    raise AssertionError(f"no outcome within {within_s} s")


def result(http: httpx.Client, submitted: dict[str, Any]) -> Any:
    """Return the JSON or the message (forward_backward) of a submission that must succeed."""
    answer = retrieve(http, submitted)
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/x-protobuf":
        return pb.ForwardBackwardOutput.FromString(answer.content)
    assert "error" not in answer.json(), answer.text
    return answer.json()


def failure(http: httpx.Client, submitted: dict[str, Any]) -> str:
    """Return the text of a submission that must fail by its user's fault."""
    answer = retrieve(http, submitted)
    assert (answer.status_code, answer.json().get("category")) == (200, "user"), answer.text
    return answer.json()["error"]
