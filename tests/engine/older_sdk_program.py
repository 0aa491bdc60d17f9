"""What a program for SDK 0.24 does, on the embedded engine; run by `test_older_sdk`."""

import tinker
from tinker import types

from cookbook.models import DEFAULT_MODEL
from cookbook.service import connect

service = connect()
run = service.create_lora_training_client(DEFAULT_MODEL, rank=4, seed=0).result()
tokenizer = run.get_tokenizer()
tokens = tokenizer.encode("My favourite colour is turquoise.")
row = types.Datum(
    model_input=types.ModelInput.from_ints(tokens[:-1]),
    loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)},
)
losses = []
for _ in range(4):
    loss = run.forward_backward([row], "cross_entropy")
    step = run.optim_step(types.AdamParams(learning_rate=3e-3))
    losses.append(loss.result().metrics["loss:sum"])
    step.result()
sampler = run.save_weights_and_get_sampling_client().result()
prompt = types.ModelInput.from_ints(tokens[:4])
answer = sampler.sample(
    prompt, 2, types.SamplingParams(max_tokens=4, temperature=0.0, stop=[])
).result()
scores = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
path = run.save_state("kept").result().path
again = service.create_training_client_from_state_with_optimizer(path).result()
forward = again.forward([row], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].tolist()
assert tinker.__version__ == "0.24.1"
assert losses[-1] < losses[0] / 2
assert [len(sequence.tokens) for sequence in answer.sequences] == [4, 4]
assert answer.sequences[0].tokens == answer.sequences[1].tokens
assert max(abs(a - b) for a, b in zip(forward, scores[1:], strict=True)) < 1e-4
print("all of it works")
