"""What SDK 0.24 lacks: each call, and the tests of it, which are not run under that version."""

import tinker

OLDER = not hasattr(tinker, "RestClient")  # this is 0.24, see test_older_sdk

LACKING = {
    "ServiceClient.close": (
        "test_a_client_can_be_closed_and_another_one_opened",
        "test_a_closed_client_gives_its_runs_back",
    ),
    "ServiceClient.create_custom_loss": ("test_a_traced_custom_loss_runs_in_the_client",),
    "ServiceClient(display_name=)": ("test_a_session_has_the_name_and_notes_of_its_client",),
    "TrainingClient.save_state(user_metadata=)": (
        "test_metadata_and_time_to_live_are_kept",
        "test_a_checkpoint_is_listed_with_what_its_user_noted",
    ),
    "TrainingClient.save_weights_external": (
        "test_an_export_is_downloaded_without_a_key_and_loads_in_peft",
        "test_a_link_that_was_changed_does_not_work",
        "test_a_bad_training_request_fails_with_its_reason[encrypted export]",
    ),
    "SamplingClient.sample(topk_sample_logprobs=)": (
        "test_the_most_likely_tokens_at_each_sampled_position",
        "test_a_bad_sampling_request_is_refused_at_once[too long a table of samples]",
    ),
    "SamplingClient.sample(target_prompt_logprobs=)": (
        "test_chosen_tokens_are_scored_at_each_position_of_the_prompt",
        "test_a_bad_sampling_request_is_refused_at_once[targets for another prompt]",
        "test_a_bad_sampling_request_is_refused_at_once[target out of range]",
    ),
    "SamplingClient.sample(prompt_alt_tokens_k=)": (
        "test_alternatives_are_drawn_at_each_position_of_the_prompt",
        "test_a_bad_sampling_request_is_refused_at_once[too many alternatives]",
    ),
    "SamplingClient.sample(prompt_logprobs_last_n=)": (
        "test_only_the_last_tokens_of_the_prompt_are_scored_on_request",
        "test_a_bad_sampling_request_is_refused_at_once[more last tokens than there are]",
    ),
    # What it can't send, text among them, leaves its training client waiting for ever.
    "TrainingClient.forward_backward(loss_fn_config=)": (
        "test_a_bad_training_request_fails_with_its_reason[text as configuration]",
    ),
    "AdamParams(learning_rate=)": (
        "test_a_bad_training_request_fails_with_its_reason[infinite learning rate]",
    ),
    "TrainingClient.save_weights_and_get_sampling_client(kind=)": (
        "test_a_bad_training_request_fails_with_its_reason[shared sampler]",
    ),
    "optimizer": (
        "test_another_optimizer_is_refused_in_its_turn",
        "test_a_bad_model_is_refused[body5-400-optimizer is 'dimuon'; this engine has adamw]",
    ),
    "sample cancelling": ("test_a_cancelled_request_leaves_its_place_to_others",),
    "SampledSequence.sequence_id": ("test_every_sample_has_an_id_of_its_own",),
    # It is there, but answers with the model's folder for a sampler made from a path.
    "SamplingClient.get_base_model": ("test_a_sampler_knows_its_base_model",),
    "SamplingClient.get_sampler_handle": ("test_a_sampler_travels_to_another_client",),
    "RestClient.get_server_capabilities": (
        "test_capabilities_name_the_model_that_clients_are_made_of",
    ),
    # Its metrics have the sum that the engine computed instead of the caller's loss.
    "TrainingClient.forward_backward_custom": ("test_a_custom_loss_over_several_chunks",),
    "RestClient.copy_weights": ("test_a_copy_keeps_weights_and_kind",),
    "RestClient.search_sessions": ("test_sessions_are_found_by_name_metadata_project_and_status",),
}
LEFT_OUT = frozenset(test for tests in LACKING.values() for test in tests)
