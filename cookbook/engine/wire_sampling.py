"""Between the SDK's sampling messages and the engine's dataclasses, with every check on the way.

Owns: what a valid sampling request is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tinker.proto import tinker_public_pb2 as pb

from cookbook.engine.config import DecoderConfig
from cookbook.engine.errors import UserError
from cookbook.engine.generation import SampleRequest, SampleResult
from cookbook.engine.prompt_scores import PromptQuestions, TopK
from cookbook.engine.sampling import SamplingSettings
from cookbook.engine.wire import check_tokens, densified

MAX_SAMPLES = 4096
MASKED_LOGPROB = -99999.0  # the SDK's mark for "no such entry" in top-k tables


def sample_request(body: Mapping[str, Any], config: DecoderConfig) -> SampleRequest:
    """Return the checked request of an `asample` body.

    Raises:
        UserError: a parameter or the prompt is out of range, or asks for what is not offered.
    """
    if body.get("record_stability_info"):
        raise UserError("record_stability_info is not offered by this engine; leave it out")
    prompt = _prompt_tokens(body.get("prompt") or {})
    check_tokens("prompt", prompt, config)
    settings = _sampling_settings(body.get("sampling_params") or {}, len(prompt), config)
    num_samples = body.get("num_samples", 1)
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise UserError(f"num_samples is {num_samples}; allowed are 1 to {MAX_SAMPLES}")
    return SampleRequest(
        prompt=prompt,
        num_samples=num_samples,
        settings=settings,
        questions=_questions(body, len(prompt), config),
        topk_sample=_count(body, "topk_sample_logprobs", config.vocab_size),
    )


def _count(body: Mapping[str, Any], name: str, highest: int) -> int:
    count = body.get(name) or 0
    if not 0 <= count <= highest:
        raise UserError(f"{name} is {count}; allowed are 0 to {highest}")
    return count


def _questions(body: Mapping[str, Any], length: int, config: DecoderConfig) -> PromptQuestions:
    """Return what a request wants to know about its prompt of so many tokens."""
    wants_logprobs = bool(body.get("prompt_logprobs"))
    last_n = body.get("prompt_logprobs_last_n")
    if last_n is not None and not (wants_logprobs and 1 <= last_n <= length - 1):
        raise UserError(
            f"prompt_logprobs_last_n is {last_n}; it needs prompt_logprobs and 1 to {length - 1}, "
            "as the prompt's first token has no probability"
        )
    return PromptQuestions(
        logprobs=wants_logprobs,
        topk=_count(body, "topk_prompt_logprobs", config.vocab_size),
        targets=_prompt_targets(body.get("target_prompt_logprobs"), length, config),
        alternatives=_count(body, "prompt_alt_tokens_k", MAX_SAMPLES),
        last_n=last_n,
    )


def _prompt_targets(
    tensor: Mapping[str, Any] | None, length: int, config: DecoderConfig
) -> np.ndarray | None:
    """Return the ids to score (length - 1, K); -1 asks for nothing."""
    if not tensor:
        return None
    name = "target_prompt_logprobs"
    ids = np.asarray(tensor.get("data") or [], dtype=np.int64)
    shape = tuple(tensor.get("shape") or ids.shape)
    if tensor.get("sparse_crow_indices") is not None:
        row_ends, columns = (
            np.asarray(tensor.get(key) or [], dtype=np.int64)
            for key in ("sparse_crow_indices", "sparse_col_indices")
        )
        ids = densified(name, ids, row_ends, columns, shape, missing=-1)
    if len(shape) != 2 or shape[0] != length - 1 or ids.size != math.prod(shape):
        raise UserError(
            f"{name} has {ids.size} values for shape {shape}; it must be ({length - 1}, K), a row "
            "for every token of the prompt but the first"
        )
    bad = ids[(ids < -1) | (ids >= config.vocab_size)]
    if bad.size:
        raise UserError(f"{name} holds token {bad[0]}; ids are 0 to {config.vocab_size - 1}, or -1")
    return ids.reshape(shape)


def _prompt_tokens(prompt: Mapping[str, Any]) -> np.ndarray:
    tokens: list[int] = []
    for chunk in prompt.get("chunks", []):
        if chunk.get("type", "encoded_text") != "encoded_text":
            raise UserError(f"prompt holds a chunk of kind {chunk['type']}; text tokens only")
        tokens += chunk["tokens"]
    return np.asarray(tokens, dtype=np.int64)


def _sampling_settings(
    params: Mapping[str, Any], prompt_length: int, config: DecoderConfig
) -> SamplingSettings:
    room = config.context - prompt_length
    max_tokens = params.get("max_tokens")
    max_tokens = room if max_tokens is None else max_tokens
    if max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}; at least 1 token must be sampled")
    if max_tokens > room:
        raise UserError(
            "prompt length plus max_tokens exceeds the context window: "
            f"{prompt_length} + {max_tokens} > {config.context}"
        )
    temperature = _number(params, "temperature", 1.0)
    top_k, top_p = params.get("top_k", -1), _number(params, "top_p", 1.0)
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature is {temperature}; it must be finite and at least 0")
    if top_k != -1 and top_k < 1:
        raise UserError(f"top_k is {top_k}; use -1 for no limit, or at least 1")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it must be above 0 and at most 1")
    stop_ids, stop_texts = _stops(params.get("stop"), config)
    return SamplingSettings(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=params.get("seed"),
        stop_ids=stop_ids,
        stop_texts=stop_texts,
    )


def _number(params: Mapping[str, Any], name: str, default: float) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} is {value!r}; it must be a number")
    return float(value)


def _stops(
    stop: str | Sequence[str | int] | None, config: DecoderConfig
) -> tuple[frozenset[int], tuple[str, ...]]:
    """Return stop ids and strings: none = end of sequence; [] = never; else those and the end."""
    if stop is None:
        return frozenset(config.eos_ids), ()
    stops = [stop] if isinstance(stop, str) else list(stop)
    if not stops:
        return frozenset(), ()
    ids = {item for item in stops if isinstance(item, int)}
    texts = tuple(item for item in stops if isinstance(item, str))
    if "" in texts:
        raise UserError("stop holds an empty string; it would end every sample at once")
    bad = [item for item in ids if not 0 <= item < config.vocab_size]
    if bad:
        raise UserError(f"stop holds token {bad[0]}; ids are 0 to {config.vocab_size - 1}")
    return frozenset(ids | set(config.eos_ids)), texts


def sample_reply(result: SampleResult, body: Mapping[str, Any]) -> bytes:
    """Return the serialized SampleResponse to an `asample` body."""
    reasons = {"stop": pb.STOP_REASON_STOP, "length": pb.STOP_REASON_LENGTH}
    reply = pb.SampleResponse()
    for sequence in result.sequences:
        message = reply.sequences.add(
            stop_reason=reasons[sequence.stop_reason or "length"],
            tokens=np.asarray(sequence.tokens, "<i4").tobytes(),
            logprobs=np.asarray(sequence.logprobs, "<f4").tobytes(),
        )
        if sequence.top:
            tokens, logprobs = (np.stack(part) for part in zip(*sequence.top, strict=True))
            _fill_topk(message.topk_sampled_logprobs, TopK(tokens, logprobs))
    scores = result.scores
    if scores.logprobs is not None:
        reply.prompt_logprobs = scores.logprobs.astype("<f4").tobytes()
    if scores.topk is not None:
        _fill_topk(reply.topk_prompt_logprobs, scores.topk)
    if scores.targets is not None:
        _fill_targets(reply.target_prompt_logprobs, scores.targets, body["target_prompt_logprobs"])
    if scores.alternatives is not None:
        table = scores.alternatives
        _fill_tensor(reply.prompt_alt_tokens.tokens, table.tokens, pb.DTYPE_INT64, "<i8")
        _fill_tensor(reply.prompt_alt_tokens.logprobs, table.logprobs, pb.DTYPE_FLOAT32, "<f4")
    return reply.SerializeToString()


def _fill_topk(message: Any, table: TopK) -> None:
    rows, message.k = table.tokens.shape
    # SDK 0.24 has another name for the same field of the same message.
    setattr(message, "length" if hasattr(message, "length") else "prompt_length", rows)
    message.token_ids = table.tokens.astype("<i4").tobytes()
    logprobs = np.nan_to_num(table.logprobs, nan=MASKED_LOGPROB)
    message.logprobs = logprobs.astype("<f4").tobytes()


def _fill_tensor(message: pb.Tensor, values: np.ndarray, dtype: int, kind: str) -> None:
    message.dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
    message.shape.extend(values.shape)
    message.dense = values.astype(kind).tobytes()


def _fill_targets(message: pb.Tensor, scores: np.ndarray, asked: Mapping[str, Any]) -> None:
    """Write the scores in the layout they were asked for."""
    if asked.get("sparse_crow_indices") is None:
        _fill_tensor(message, scores, pb.DTYPE_FLOAT32, "<f4")
        return
    row_ends = np.asarray(asked["sparse_crow_indices"], "<i8")
    columns = np.asarray(asked["sparse_col_indices"], "<i8")
    listed = scores[np.repeat(np.arange(len(scores)), np.diff(row_ends)), columns]
    message.dtype = pb.DTYPE_FLOAT32
    message.shape.extend(scores.shape)
    message.sparse_csr.values = listed.astype("<f4").tobytes()
    message.sparse_csr.crow_indices = row_ends.tobytes()
    message.sparse_csr.col_indices = columns.tobytes()
