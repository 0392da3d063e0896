"""One rank's work: data, augmentation, models, optimizers and the training loop. Knows torch, never ray."""
