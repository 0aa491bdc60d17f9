"""Between the SDK's messages and the engine's own dataclasses, with every check on the way in.

Owns: what a valid request is. Schema modules come from the `tinker` package, so they stay true as
the SDK moves. Numbers are little-endian blobs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tinker.proto import tinker_public_pb2 as pb

from cookbook.engine.config import DecoderConfig
from cookbook.engine.errors import UserError
from cookbook.engine.generation import SampleRequest, SampleResult, TopK
from cookbook.engine.losses import LOSSES
from cookbook.engine.sampling import SamplingSettings
from cookbook.engine.trainer import LossResult, TrainingDatum

DTYPES = {pb.DTYPE_FLOAT32: np.dtype("<f4"), pb.DTYPE_INT64: np.dtype("<i8")}
MAX_SAMPLES = 4096
MASKED_LOGPROB = -99999.0  # the SDK's mark for "no such entry" in top-k tables


def parse_forward_backward(body: bytes) -> pb.ForwardBackwardRequest:
    """Return the decoded message; the datums inside are checked later by `training_data`."""
    message = pb.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise UserError(f"the body is no ForwardBackwardRequest: {error}") from error
    return message


def training_data(
    message: pb.ForwardBackwardRequest, config: DecoderConfig
) -> tuple[list[TrainingDatum], str]:
    """Return the checked datums and the loss's name.

    Raises:
        UserError: names the datum, the field, the value seen and what is allowed.
    """
    if message.loss_fn not in LOSSES:
        known = ", ".join(sorted(LOSSES))
        raise UserError(f"loss_fn is {message.loss_fn!r}; this engine has {known}")
    given = sorted({*message.loss_fn_config, *message.loss_fn_config_v2})
    if given:
        raise UserError(f"loss_fn_config has {given}; {message.loss_fn} takes no configuration")
    if not message.data:
        raise UserError("the batch is empty; send at least one datum")
    data = []
    for i, datum in enumerate(message.data):
        try:
            data.append(_training_datum(datum, message.loss_fn, config))
        except UserError as error:
            raise UserError(f"datum {i}: {error}") from None
    return data, message.loss_fn


def _training_datum(datum: pb.Datum, loss: str, config: DecoderConfig) -> TrainingDatum:
    tokens = _input_tokens(datum)
    _check_tokens("model_input", tokens, config)
    if len(tokens) > config.context:
        raise UserError(
            f"model_input has {len(tokens)} tokens; the model's context is {config.context}"
        )
    arrays = {name: _dense(name, tensor) for name, tensor in datum.loss_fn_inputs.items()}
    targets = arrays.pop("target_tokens", None)
    required = LOSSES[loss].required
    allowed = {*required, "weights"}
    missing = [name for name in required if name not in arrays and name != "weights"]
    if targets is None or missing:
        names = (["target_tokens"] if targets is None else []) + missing
        raise UserError(
            f"loss_fn_inputs lacks {', '.join(names)}; {loss} needs target_tokens"
            + "".join(f", {name}" for name in required)
        )
    unknown = sorted(set(arrays) - allowed)
    if unknown:
        raise UserError(
            f"loss_fn_inputs has unknown {', '.join(unknown)}; {loss} takes target_tokens, "
            + ", ".join(sorted(allowed))
        )
    if targets.dtype != np.int64:
        raise UserError("target_tokens are float32; they must be integers (int64)")
    if targets.ndim > 2 or len(targets) != len(tokens) or targets.size == 0:
        raise UserError(
            f"target_tokens has shape {targets.shape}; it must be ({len(tokens)},) or "
            f"({len(tokens)}, K), as model_input has {len(tokens)} tokens"
        )
    _check_tokens("target_tokens", targets, config)
    inputs = {name: _loss_input(name, array, targets.shape) for name, array in arrays.items()}
    inputs.setdefault("weights", np.ones(targets.shape, np.float32))
    return TrainingDatum(tokens, targets, inputs)


def _input_tokens(datum: pb.Datum) -> np.ndarray:
    parts = []
    for chunk in datum.model_input:
        if chunk.WhichOneof("chunk") != "encoded_text":
            raise UserError(
                f"model_input holds a chunk of kind {chunk.WhichOneof('chunk')}; this engine reads "
                "text tokens only"
            )
        parts.append(np.frombuffer(chunk.encoded_text.tokens, "<i4"))
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def _dense(name: str, tensor: pb.Tensor) -> np.ndarray:
    """Return a tensor as a dense array; missing entries of a sparse one are 0."""
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UserError(f"{name} has dtype {pb.DType.Name(tensor.dtype)}; use float32 or int64")
    shape = tuple(tensor.shape)
    if tensor.WhichOneof("encoding") == "sparse_csr":
        return _densify(name, tensor, dtype, shape)
    values = np.frombuffer(tensor.dense, dtype)
    if shape and math.prod(shape) != values.size:
        raise UserError(f"{name} has {values.size} values for shape {shape}")
    return values.reshape(shape) if shape else values


def _densify(name: str, tensor: pb.Tensor, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    values = np.frombuffer(tensor.sparse_csr.values, dtype)
    row_ends = np.frombuffer(tensor.sparse_csr.crow_indices, "<i8")
    columns = np.frombuffer(tensor.sparse_csr.col_indices, "<i8")
    fits = (
        len(shape) == 2
        and len(row_ends) == shape[0] + 1
        and len(values) == len(columns) == row_ends[-1]
        and bool(np.all(np.diff(row_ends) >= 0))
        and bool(np.all((columns >= 0) & (columns < shape[1])))
    )
    if not fits:
        raise UserError(f"{name} is a sparse tensor whose indices do not fit its shape {shape}")
    dense = np.zeros(shape, dtype)
    dense[np.repeat(np.arange(shape[0]), np.diff(row_ends)), columns] = values
    return dense


def _check_tokens(name: str, tokens: np.ndarray, config: DecoderConfig) -> None:
    if tokens.size == 0:
        raise UserError(f"{name} is empty; at least one token is needed")
    bad = tokens[(tokens < 0) | (tokens >= config.vocab_size)]
    if bad.size:
        raise UserError(f"{name} holds token {bad[0]}; ids are 0 to {config.vocab_size - 1}")


def _loss_input(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.dtype != np.float32:
        raise UserError(f"{name} is int64; it must be float32")
    if array.shape != shape:
        raise UserError(f"{name} has shape {array.shape}; target_tokens has {shape}")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
        raise UserError(f"{name}[{at}] is {array.ravel()[at]}; all values must be finite")
    return array


def loss_reply(result: LossResult) -> bytes:
    """Return the serialized ForwardBackwardOutput; datums of equal width share a record."""
    output = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics=result.metrics)
    start = 0
    for end in range(1, len(result.logprobs) + 1):
        tail = result.logprobs[start].shape[1:]
        if end < len(result.logprobs) and result.logprobs[end].shape[1:] == tail:
            continue
        arrays = result.logprobs[start:end]
        sizes = np.cumsum([0] + [array.nbytes for array in arrays], dtype="<i8")
        record = output.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=len(arrays))
        field = record.fields["logprobs"]
        field.data = b"".join(array.astype("<f4").tobytes() for array in arrays)
        field.offsets = sizes.tobytes()
        field.dtype = pb.DTYPE_FLOAT32
        field.trailing_shape.extend(tail)
        start = end
    return output.SerializeToString()


def sample_request(body: Mapping[str, Any], config: DecoderConfig) -> SampleRequest:
    """Return the checked request of an `asample` body.

    Raises:
        UserError: a parameter or the prompt is out of range, or asks for what is not offered.
    """
    for name in (
        "target_prompt_logprobs",
        "prompt_alt_tokens_k",
        "topk_sample_logprobs",
        "prompt_logprobs_last_n",
        "record_stability_info",
    ):
        if body.get(name):
            raise UserError(f"{name} is not offered by this engine; leave it out")
    prompt = _prompt_tokens(body.get("prompt") or {})
    _check_tokens("prompt", prompt, config)
    settings = _sampling_settings(body.get("sampling_params") or {}, len(prompt), config)
    num_samples = body.get("num_samples", 1)
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise UserError(f"num_samples is {num_samples}; allowed are 1 to {MAX_SAMPLES}")
    k = body.get("topk_prompt_logprobs") or 0
    if not 0 <= k <= config.vocab_size:
        raise UserError(f"topk_prompt_logprobs is {k}; allowed are 0 to {config.vocab_size}")
    return SampleRequest(
        prompt=prompt,
        num_samples=num_samples,
        settings=settings,
        prompt_logprobs=bool(body.get("prompt_logprobs")),
        topk_prompt=k,
    )


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


def sample_reply(result: SampleResult) -> bytes:
    """Return the serialized SampleResponse."""
    reasons = {"stop": pb.STOP_REASON_STOP, "length": pb.STOP_REASON_LENGTH}
    reply = pb.SampleResponse()
    for sequence in result.sequences:
        reply.sequences.add(
            stop_reason=reasons[sequence.stop_reason or "length"],
            tokens=np.asarray(sequence.tokens, "<i4").tobytes(),
            logprobs=np.asarray(sequence.logprobs, "<f4").tobytes(),
        )
    if result.prompt_logprobs is not None:
        reply.prompt_logprobs = result.prompt_logprobs.astype("<f4").tobytes()
    if result.topk_prompt is not None:
        _fill_topk(reply.topk_prompt_logprobs, result.topk_prompt)
    return reply.SerializeToString()


def _fill_topk(message: pb.TopkLogprobs, table: TopK) -> None:
    message.length, message.k = table.tokens.shape
    message.token_ids = table.tokens.astype("<i4").tobytes()
    logprobs = np.nan_to_num(table.logprobs, nan=MASKED_LOGPROB)
    message.logprobs = logprobs.astype("<f4").tobytes()
