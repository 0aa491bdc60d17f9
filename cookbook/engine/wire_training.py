"""Between the SDK's training messages and the trainer's dataclasses, with every check on the way.

Owns: what a valid training request is.
"""

import numpy as np
from google.protobuf.message import DecodeError
from tinker.proto import tinker_public_pb2 as pb

from cookbook.engine.config import DecoderConfig
from cookbook.engine.errors import UserError
from cookbook.engine.losses import LossCall, loss_call
from cookbook.engine.trainer import LossResult, TrainingDatum
from cookbook.engine.wire import array_of, check_tokens


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
) -> tuple[list[TrainingDatum], LossCall]:
    """Return the checked datums and the configured loss.

    Raises:
        UserError: names the datum, the field, the value seen and what is allowed.
    """
    call = loss_call(message.loss_fn, _loss_config(message))
    if not message.data:
        raise UserError("the batch is empty; send at least one datum")
    data = []
    for i, datum in enumerate(message.data):
        try:
            data.append(_training_datum(datum, call, config))
        except UserError as error:
            raise UserError(f"datum {i}: {error}") from None
    return data, call


def _loss_config(message: pb.ForwardBackwardRequest) -> dict[str, float]:
    """Return the configuration; where the newer map is set it holds, the older repeats a part."""
    newer = getattr(message, "loss_fn_config_v2", None)  # SDK 0.24 has none
    if not newer:
        return dict(message.loss_fn_config)
    config = {}
    for key, value in newer.items():
        if value.WhichOneof("value") != "number":
            raise UserError(f"loss_fn_config {key} is {value.text!r}; it must be a number")
        config[key] = value.number
    return config


def _training_datum(datum: pb.Datum, call: LossCall, config: DecoderConfig) -> TrainingDatum:
    tokens = _input_tokens(datum)
    check_tokens("model_input", tokens, config)
    if len(tokens) > config.context:
        raise UserError(
            f"model_input has {len(tokens)} tokens; the model's context is {config.context}"
        )
    arrays = {name: array_of(name, tensor) for name, tensor in datum.loss_fn_inputs.items()}
    targets = arrays.pop("target_tokens", None)
    required = call.loss.required
    allowed = {*required, "weights"}
    missing = [name for name in required if name not in arrays and name != "weights"]
    if targets is None or missing:
        names = (["target_tokens"] if targets is None else []) + missing
        raise UserError(
            f"loss_fn_inputs lacks {', '.join(names)}; {call.name} needs target_tokens"
            + "".join(f", {name}" for name in required)
        )
    unknown = sorted(set(arrays) - allowed)
    if unknown:
        raise UserError(
            f"loss_fn_inputs has unknown {', '.join(unknown)}; {call.name} takes target_tokens, "
            + ", ".join(sorted(allowed))
        )
    if targets.dtype != np.int64:
        raise UserError("target_tokens are float32; they must be integers (int64)")
    if targets.ndim > 2 or len(targets) != len(tokens) or targets.size == 0:
        raise UserError(
            f"target_tokens has shape {targets.shape}; it must be ({len(tokens)},) or "
            f"({len(tokens)}, K), as model_input has {len(tokens)} tokens"
        )
    check_tokens("target_tokens", targets, config)
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
