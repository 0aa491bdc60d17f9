"""What SDK 0.24 lacks: each call, and the tests of it, which are not run under that version."""

LACKING = {
    "ServiceClient.close": (
        "test_a_client_can_be_closed_and_another_one_opened",
        "test_a_closed_client_gives_its_runs_back",
    ),
    "ServiceClient.create_custom_loss": ("test_a_traced_custom_loss_runs_in_the_client",),
    "TrainingClient.save_state(user_metadata=)": ("test_metadata_and_time_to_live_are_kept",),
    "TrainingClient.save_weights_external": (
        "test_an_export_is_downloaded_without_a_key_and_loads_in_peft",
        "test_a_link_works_for_a_while",
    ),
    "SamplingClient.sample(topk_sample_logprobs=)": (
        "test_the_most_likely_tokens_at_each_sampled_position",
    ),
    "SamplingClient.sample(target_prompt_logprobs=)": (
        "test_chosen_tokens_are_scored_at_each_position_of_the_prompt",
    ),
    "SamplingClient.sample(prompt_alt_tokens_k=)": (
        "test_alternatives_are_drawn_at_each_position_of_the_prompt",
    ),
    "SamplingClient.sample(prompt_logprobs_last_n=)": (
        "test_only_the_last_tokens_of_the_prompt_are_scored_on_request",
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
