"""What users of other programs call a field: Lightning, the Hugging Face Trainer, timm, torchrun, W&B, SLURM.

By meaning and not by letters: `difflib` finds a misspelled name, and this one that is spelled well elsewhere. Names are those
of their public command lines and configs, with underscores.
"""

from collections.abc import Collection, Mapping

WORDS: Mapping[str, str] = {
    # the batch
    **dict.fromkeys(("batch_size", "train_batch_size", "bs", "b", "batch.size", "global_batch_size"), "batch.global_size"),
    **dict.fromkeys(("per_device_train_batch_size", "per_gpu_batch_size", "local_batch_size"), "batch.per_worker_size"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps", "micro_batch_size"),
        "batch.micro_size",
    ),
    **dict.fromkeys(("eval_batch_size", "per_device_eval_batch_size", "validation_batch_size"), "eval.micro_size"),
    **dict.fromkeys(("strategy", "ddp", "distributed_backend"), "batch.reduce"),
    # the optimizer and its LR
    **dict.fromkeys(("optimizer", "optim", "opt", "optimizer.type"), "optimizer.name"),
    **dict.fromkeys(("lr", "learning_rate", "max_lr", "base_lr", "lr.lr", "peak_lr"), "lr.base"),
    **dict.fromkeys(("wd", "weight_decay", "l2"), "optimizer.weight_decay"),
    **dict.fromkeys(("betas", "adam_beta1", "opt_betas"), "optimizer.beta1"),
    "adam_beta2": "optimizer.beta2",
    **dict.fromkeys(("adam_epsilon", "epsilon", "opt_eps"), "optimizer.eps"),
    **dict.fromkeys(
        ("scheduler", "sched", "lr_scheduler", "lr_scheduler_type", "lr_schedule", "lr_decay", "min_lr", "decay_epochs"),
        "lr.shape",
    ),
    **dict.fromkeys(("warmup_epochs", "warmup_steps", "warmup_ratio", "num_warmup_steps", "warmup_iters"), "lr.warmup"),
    **dict.fromkeys(("clip_grad", "gradient_clip_val", "max_grad_norm", "grad_clip"), "loss.clip_norm"),
    # the model, the loss and the data
    **dict.fromkeys(("model", "arch", "net", "model_name_or_path"), "model.name"),
    **dict.fromkeys(("drop", "drop_rate", "dropout_rate"), "model.dropout"),
    **dict.fromkeys(("torch_compile", "torchcompile", "compile"), "model.compile"),
    **dict.fromkeys(("loss", "criterion", "loss_fn"), "loss.name"),
    **dict.fromkeys(("smoothing", "label_smoothing_factor"), "loss.label_smoothing"),
    **dict.fromkeys(
        ("data", "dataset", "data_dir", "dataset_name", "data_path", "train_dir", "imagefolder"), "data.source"
    ),
    **dict.fromkeys(("max_train_samples", "limit_train_batches", "train_size"), "data.train_examples"),
    **dict.fromkeys(("max_eval_samples", "limit_val_batches", "limit_test_batches"), "data.test_examples"),
    **dict.fromkeys(("hflip", "horizontal_flip"), "data.flip"),
    **dict.fromkeys(("random_crop", "crop"), "data.crop_padding"),
    **dict.fromkeys(
        ("aa", "auto_augment", "augment", "augmentation", "transforms", "train_transform", "color_jitter", "reprob", "remode"),
        "data.transform",
    ),
    **dict.fromkeys(("dataset_args", "dataset_kwargs", "dataset_config"), "data.options"),
    # its length, and where it is
    **dict.fromkeys(("max_epochs", "num_epochs", "num_train_epochs", "max_steps", "total_steps", "iterations"), "epochs"),
    **dict.fromkeys(("manual_seed", "random_state", "random_seed", "seed_everything"), "seed"),
    **dict.fromkeys(
        ("output_dir", "out_dir", "output", "default_root_dir", "log_dir", "logging_dir", "save_dir", "workdir"), "storage"
    ),
    **dict.fromkeys(("run_name", "experiment", "exp_name", "job_name", "run_id"), "name"),
    **dict.fromkeys(("resume", "resume_from_checkpoint", "ckpt_path", "auto_resume", "requeue"), "name"),
    **dict.fromkeys(("overwrite_output_dir", "overwrite", "restart", "no_resume"), "fresh"),
    **dict.fromkeys(("report_to", "logger", "log_wandb", "project", "wandb", "tracker"), "trackers"),
    # the workers
    **dict.fromkeys(
        ("gpus", "devices", "num_workers", "num_gpus", "nproc_per_node", "num_processes", "world_size", "ntasks", "nnodes",
         "nodes", "num_nodes", "gres", "gpus_per_node", "j"),
        "workers",
    ),
    "cpus_per_task": "cpus_per_worker",
    **dict.fromkeys(("omp_num_threads", "threads", "intra_op_threads"), "num_threads"),
    **dict.fromkeys(("accelerator", "device", "cuda", "use_cpu", "no_cuda"), "gpu"),
    **dict.fromkeys(("amp", "fp16", "bf16", "mixed_precision", "amp_dtype"), "precision"),
    **dict.fromkeys(("master_addr", "rdzv_endpoint", "ray_address", "cluster", "address.ray"), "address"),
    **dict.fromkeys(("max_restarts", "max_retries", "retries"), "failure.max_failures"),
    # now and then
    **dict.fromkeys(("save_steps", "save_interval", "checkpoint_frequency", "save_every", "ckpt_every"), "checkpoint.every"),
    **dict.fromkeys(("save_total_limit", "save_top_k", "checkpoint_hist"), "checkpoint.keep"),
    **dict.fromkeys(("eval_steps", "check_val_every_n_epoch", "val_check_interval", "eval_interval"), "eval.every"),
    **dict.fromkeys(("logging_steps", "log_every_n_steps", "log_interval", "print_freq"), "log_every"),
    **dict.fromkeys(("early_stopping", "early_stopping_metric", "monitor", "metric_for_best_model"), "stop.metric"),
    **dict.fromkeys(("patience", "early_stopping_patience"), "stop.patience"),
    **dict.fromkeys(("compute_metrics", "eval_metrics", "metric"), "metrics"),
    **dict.fromkeys(("callbacks", "callback", "hook"), "hooks.update"),
}  # fmt: skip
NOTES: Mapping[str, str] = {
    "gradient_accumulation_steps": "batch.global_size is that of an update, and passes through the model in such parts",
    "accumulate_grad_batches": "batch.global_size is that of an update, and passes through the model in such parts",
    "num_workers": "these train; images are decoded once, and no process loads them",
    "j": "these train; images are decoded once, and no process loads them",
    "gpus": "each has one GPU",
    "resume": "the same name goes on by itself",
    "resume_from_checkpoint": "the same name goes on by itself",
    "ckpt_path": "the same name goes on by itself",
    "auto_resume": "the same name goes on by itself",
    "requeue": "the same name goes on by itself",
    "batch_size": "over all workers; batch.per_worker_size is that of one",
    "max_steps": "lengths are in epochs",
    "total_steps": "lengths are in epochs",
    "iterations": "lengths are in epochs",
    "min_lr": "such as cosine(floor=0.01), a share of the peak",
    "warmup_epochs": "such as 5ep",
    "warmup_steps": "such as 500st",
    "num_warmup_steps": "such as 500st",
    "warmup_ratio": "such as 0.1dur",
    "monitor": "such as test_loss",
    "patience": "such as 3ep",
    "early_stopping_patience": "such as 3ep",
    "callbacks": "and hooks.test, hooks.end; they see, and do not steer",
}


def meant(key: str, known: Collection[str]) -> str:
    """What to say of a key that another program has for one of the fields `known`; "" where none is meant.

    >>> meant("learning-rate", ["lr.base"])
    'did you mean lr.base?'
    """
    whole = key.lower().replace("-", "_")
    group, parts = "", whole.split(".")
    if parts[0] == "optimizers" and len(parts) > 2:
        group, whole = f"optimizers.{key.split('.')[1]}.", ".".join(parts[2:])
    for word in (whole, whole.rpartition(".")[2]):
        field = WORDS.get(word)
        if field is not None and group + field in known:
            note = f" ({NOTES[word]})" if word in NOTES else ""
            return f"did you mean {group}{field}?{note}"
    return ""
