"""A client that is killed while its requests are pending; see `test_sdk_clients`."""

import sys
import time

import tinker
from tinker import types

from cookbook.older_sdk import adapt

adapt()
base_url, api_key, model = sys.argv[1:]
service = tinker.ServiceClient(base_url=base_url, api_key=api_key)
run = service.create_lora_training_client(model, rank=2, seed=0).result()
sampler = run.save_weights_and_get_sampling_client().result()
prompt = types.ModelInput.from_ints([5, 6, 7])
row = types.Datum(model_input=prompt, loss_fn_inputs={"target_tokens": [6, 7, 8]})
endless = types.SamplingParams(max_tokens=120, stop=[])
pending = [sampler.sample(prompt, 16, endless) for _ in range(30)]
for _ in range(50):
    pending.append(run.forward_backward([row] * 50, "cross_entropy"))
    pending.append(run.optim_step(types.AdamParams(learning_rate=1e-3)))
time.sleep(0.5)  # sent, and waited for
print(run.model_id, flush=True)
time.sleep(600)
