"""Saving, loading and continuing through the SDK, and what lies on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import tinker
import torch
from safetensors.numpy import load_file, save_file
from tinker import types
from transformers import AutoModelForCausalLM

from tests.engine.processes import checkpoint_folder, start_engine
from tests.engine.sdk import (
    assert_identical,
    client_of,
    datum,
    deprecated,
    prompt,
    saved,
    step,
    tensors,
)

ROW, OTHER_ROW = [5, 6, 7, 8, 9], [40, 30, 20]
GREEDY = types.SamplingParams(max_tokens=12, temperature=0.0, stop=[])
NewRun = Callable[..., tinker.TrainingClient]


@pytest.fixture
def trained(new_run: NewRun) -> tinker.TrainingClient:
    """A run that has taken two steps, so that Adam remembers something."""
    run = new_run()
    for row in (ROW, OTHER_ROW):
        step(run, row)
    return run


def greedy(sampler: tinker.SamplingClient) -> list[int]:
    return list(sampler.sample(prompt(5, 6, 7), 1, GREEDY).result().sequences[0].tokens)


# Continuing.


def test_with_the_optimizer_a_run_continues_bit_for_bit(trained, tiny_service, tiny_checkpoints):
    path = trained.save_state("half-way").result().path
    assert path == f"tinker://{trained.model_id}/weights/half-way"
    losses = [step(trained, row) for row in (ROW, OTHER_ROW, ROW)]
    again = tiny_service.create_training_client_from_state_with_optimizer(path).result()
    assert again.model_id != trained.model_id
    assert again.get_info().lora_rank == trained.get_info().lora_rank
    assert [step(again, row) for row in (ROW, OTHER_ROW, ROW)] == losses
    assert_identical(tensors(again, tiny_checkpoints), tensors(trained, tiny_checkpoints))


def test_moments_and_step_count_come_back(trained, tiny_service, tiny_checkpoints):
    first = trained.save_state("a").result().path
    again = tiny_service.create_training_client_from_state_with_optimizer(first).result()
    second = again.save_state("b").result().path
    folders = [checkpoint_folder(tiny_checkpoints, path) for path in (first, second)]
    ours, theirs = (load_file(folder / "optimizer.safetensors") for folder in folders)
    assert_identical(ours, theirs)
    assert any(name.endswith("exp_avg_sq") and value.any() for name, value in ours.items())
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert [manifest["steps"] for manifest in manifests] == [2, 2]


def test_without_the_optimizer_the_weights_are_the_same_and_adam_is_fresh(
    trained, tiny_service, tiny_checkpoints
):
    path = trained.save_state("a").result().path
    again = tiny_service.create_training_client_from_state(path).result()
    assert_identical(tensors(again, tiny_checkpoints), saved(path, tiny_checkpoints))
    fresh = again.save_state("b").result().path
    assert not load_file(checkpoint_folder(tiny_checkpoints, fresh) / "optimizer.safetensors")
    assert step(again, ROW) == step(trained, ROW)  # one gradient, but two steps:
    ours, theirs = tensors(again, tiny_checkpoints), tensors(trained, tiny_checkpoints)
    assert all((ours[name] != theirs[name]).any() for name in ours)


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_the_deprecated_load_state_does_the_same(
    trained, new_run: NewRun, tiny_service, tiny_checkpoints, with_optimizer
):
    path = trained.save_state("a").result().path
    suffix = "_with_optimizer" if with_optimizer else ""
    create = getattr(tiny_service, f"create_training_client_from_state{suffix}")
    expected = create(path).result()
    loaded = new_run(seed=99)
    step(loaded, OTHER_ROW)
    with deprecated():
        submitted = getattr(loaded, f"load_state{suffix}")(path)
    assert submitted.result().path == path
    for run in (expected, loaded):
        step(run, ROW)
    assert_identical(tensors(loaded, tiny_checkpoints), tensors(expected, tiny_checkpoints))


def test_gradients_do_not_outlive_a_load(trained, tiny_service):
    path = trained.save_state("a").result().path
    trained.forward_backward([datum(ROW)], "cross_entropy").result()
    with deprecated():
        trained.load_state(path).result()
    metrics = trained.optim_step(types.AdamParams()).result().metrics
    assert metrics == {"unclipped_grad_l2:mean": 0.0}


def test_another_session_continues_too(trained, tiny_engine):
    path = trained.save_state("a").result().path
    other = tinker.ServiceClient(base_url=tiny_engine.base_url, api_key=tiny_engine.api_key)
    again = other.create_training_client_from_state_with_optimizer(path).result()
    assert step(again, ROW) == step(trained, ROW)


# Names.


def test_overwrite_replaces_a_checkpoint_on_request(trained, tiny_checkpoints):
    first = trained.save_state("same").result().path
    old = saved(first, tiny_checkpoints)
    step(trained, ROW)
    assert trained.save_state("same", overwrite=True).result().path == first
    new = saved(first, tiny_checkpoints)
    assert any((new[name] != old[name]).any() for name in old)
    folder = checkpoint_folder(tiny_checkpoints, first)
    assert [path.name for path in folder.parent.iterdir()] == ["same"]  # nothing left over


def test_metadata_and_time_to_live_are_kept(trained, tiny_checkpoints):
    path = trained.save_state("a", ttl_seconds=3600, user_metadata={"note": "x"}).result().path
    manifest = json.loads((checkpoint_folder(tiny_checkpoints, path) / "manifest.json").read_text())
    assert manifest["user_metadata"] == {"note": "x"}
    assert manifest["expires"] is not None


# Samplers.


def test_a_snapshot_does_not_change_with_later_steps(trained, tiny_service):
    unnamed = trained.save_weights_and_get_sampling_client().result()
    path = trained.save_weights_for_sampler("now").result().path
    named = tiny_service.create_sampling_client(model_path=path).result()
    before = unnamed.compute_logprobs(prompt(*ROW)).result()
    tokens = greedy(unnamed)
    for _ in range(3):
        step(trained, ROW)
    later = trained.save_weights_and_get_sampling_client().result()
    for sampler in (unnamed, named, trained.create_sampling_client(path).result()):
        assert sampler.compute_logprobs(prompt(*ROW)).result() == before
        assert greedy(sampler) == tokens
    after = later.compute_logprobs(prompt(*ROW)).result()
    assert sum(after[1:]) > sum(before[1:]) + 1  # the row was learnt


def test_a_sampler_agrees_with_the_run_it_was_made_from(trained):
    sampler = trained.save_weights_and_get_sampling_client().result()
    scored = sampler.compute_logprobs(prompt(*ROW)).result()
    forward = trained.forward([datum(ROW)], "cross_entropy").result()
    assert scored[0] is None
    assert scored[1:] == pytest.approx(forward.loss_fn_outputs[0]["logprobs"].tolist(), abs=1e-4)


def test_a_training_checkpoint_can_be_sampled_from(trained, tiny_service):
    expected = greedy(trained.save_weights_and_get_sampling_client().result())
    path = trained.save_state("a").result().path
    assert greedy(tiny_service.create_sampling_client(model_path=path).result()) == expected


def test_a_sampler_from_a_path_has_a_tokenizer_without_any_hub(trained, tiny_service):
    path = trained.save_weights_for_sampler("x").result().path
    sampler = tiny_service.create_sampling_client(model_path=path).result()
    assert sampler.get_tokenizer().encode("\n\n1.") == [1116, 33, 30]


# On disk.


@pytest.mark.parametrize(
    "flags", [{}, {"train_unembed": False}, {"train_attn": False, "train_mlp": False}]
)
def test_peft_loads_the_folder(new_run: NewRun, tiny_model, tiny_checkpoints, flags):
    run = new_run(rank=3, **flags)
    step(run, ROW)
    paths = run.save_state("a").result().path, run.save_weights_for_sampler("a").result().path
    for path in paths:
        folder = checkpoint_folder(tiny_checkpoints, path)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(base, str(folder))
        loaded = peft.get_peft_model_state_dict(model)
        expected = load_file(folder / "adapter_model.safetensors")
        # peft adds the embedding itself where the adapted unembedding is tied to it.
        ours = {name: value.numpy() for name, value in loaded.items() if "lora_" in name}
        assert_identical(ours, expected)
        assert model.peft_config["default"].r == 3


def test_a_checkpoint_holds_no_pickle(trained, tiny_checkpoints):
    state = checkpoint_folder(tiny_checkpoints, trained.save_state("a").result().path)
    sampler = checkpoint_folder(
        tiny_checkpoints, trained.save_weights_for_sampler("a").result().path
    )
    both = {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert {path.name for path in sampler.iterdir()} == both
    assert {path.name for path in state.iterdir()} == both | {"optimizer.safetensors"}


def test_a_state_with_the_steps_of_each_tensor_is_still_read(
    trained, tiny_service, tiny_checkpoints
):
    path = trained.save_state("of-before").result().path
    file = checkpoint_folder(tiny_checkpoints, path) / "optimizer.safetensors"
    before = {}  # as earlier engines wrote it: torch.optim's state, a count beside each moment
    for name, moment in load_file(file).items():
        before[f"{name.partition('.')[0]}.step"] = np.array(2.0, np.float32)
        before[name] = moment
    save_file(before, file)
    again = tiny_service.create_training_client_from_state_with_optimizer(path).result()
    for row in (ROW, OTHER_ROW):
        assert step(again, row) == step(trained, row)
    assert_identical(tensors(again, tiny_checkpoints), tensors(trained, tiny_checkpoints))


def test_checkpoints_survive_the_death_of_the_engine(tiny_model: Path, tmp_path: Path):
    first = start_engine(tiny_model, tmp_path, "--embedded")
    try:
        with client_of(first) as service:
            run = service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
            step(run, ROW)
            path = run.save_state("kept").result().path
            sampler_path = run.save_weights_for_sampler("kept").result().path
            expected = greedy(run.save_weights_and_get_sampling_client().result())
            losses = [step(run, row) for row in (OTHER_ROW, ROW)]
    finally:
        first.end()  # SIGKILL
    second = start_engine(tiny_model, tmp_path, "--embedded")
    try:
        with client_of(second) as service:
            again = service.create_training_client_from_state_with_optimizer(path).result()
            assert [step(again, row) for row in (OTHER_ROW, ROW)] == losses
            sampler = service.create_sampling_client(model_path=sampler_path).result()
            assert greedy(sampler) == expected
    finally:
        second.end()


def test_a_checkpoint_describes_itself(new_run: NewRun, tiny_engine, tiny_model):
    path = new_run(rank=3, train_unembed=False).save_state("a").result().path
    rest = tinker.RestClient(base_url=tiny_engine.base_url, api_key=tiny_engine.api_key)
    info = rest.get_weights_info_by_tinker_path(path).result()
    assert (info.base_model, info.is_lora, info.lora_rank) == (str(tiny_model), True, 3)
    assert (info.train_attn, info.train_mlp, info.train_unembed) == (True, True, False)
