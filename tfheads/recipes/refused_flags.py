"""Flags of Hugging Face's scripts that the recipes do not take, and why: what is always so, or is not there."""

REASONS = {
    "tokenizers are always the fast ones": ("use_fast_tokenizer",),
    "no code from a repository is run": ("trust_remote_code",),
    "weights are read in pieces in any case": ("low_cpu_mem_usage",),
    "it is called token": ("use_auth_token",),
    "strategy and num_replicas choose the devices, docs/scaling.md says how": (
        *("use_cpu", "no_cuda", "local_rank", "fsdp", "fsdp_", "deepspeed", "ddp_", "accelerator_config"),
        *("parallelism_config", "average_tokens_across_devices", "log_on_each_node", "save_on_each_node"),
    ),
    "XLA compiles the model, see jit_compile": (
        "torch_compile",
        "torch_compile_",
        "use_liger_kernel",
        "liger_kernel_config",
    ),
    "there is no PyTorch under it": ("torch_empty_cache_steps", "tf32", "half_precision_backend", "fp16_opt_level"),
    "evaluation computes as the training does, see bf16, fp16 and dtype": ("bf16_full_eval", "fp16_full_eval"),
    "whole blocks are computed again, there is nothing to choose": (
        "gradient_checkpointing_kwargs",
        "activation_checkpointing_kwargs",
    ),
    "its options are weight_decay, adam_beta1, adam_beta2 and adam_epsilon": ("optim_args", "optim_target_modules"),
    "give optim adafactor": ("adafactor",),
    "the loss is the model's own; a script with model.compile can have another": (
        "label_smoothing_factor",
        "neftune_noise_alpha",
    ),
    "memory is not measured, see gradient_accumulation_steps and gradient_checkpointing": ("auto_find_batch_size",),
    "training keeps no keys and values": ("use_cache",),
    "tf.data reads ahead by itself": ("dataloader_",),
    "rows of like lengths share a batch": ("group_by_length", "train_sampling_strategy", "length_column_name"),
    "the model says which columns it takes": ("remove_unused_columns", "label_names"),
    "evaluation has one way, over all of the data": (
        *("prediction_loss_only", "batch_eval_metrics", "include_for_metrics", "include_inputs_for_metrics"),
        *("eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object", "eval_delay"),
    ),
    "a saved state is whole and goes on exactly": (
        *("save_only_model", "save_safetensors", "ignore_data_skip", "enable_jit_checkpoint", "full_determinism"),
        "restore_callback_states_from_checkpoint",
    ),
    "the log has one form": (
        *("log_level", "log_level_replica", "logging_nan_inf_filter", "disable_tqdm", "debug", "skip_memory_metrics"),
        "include_num_input_tokens_seen",
    ),
    "TensorBoard's files are in output_dir/runs": ("logging_dir",),
    "trackers are wandb and tensorboard, see report_to": ("project", "trackio_"),
    "uploads follow each other on the branch main": ("hub_always_push", "hub_revision"),
}
"""Reasons with the names of flags, or with what all names of some begin with (which then ends in an underscore)."""


def refusal(name: str) -> str | None:
    """Why a flag is not taken; None for one that Hugging Face's scripts do not have either."""
    for reason, flags in REASONS.items():
        if any(name == flag or (flag.endswith("_") and name.startswith(flag)) for flag in flags):
            return reason
    return None
