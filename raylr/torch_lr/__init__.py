"""A policy for a torch optimizer, and a torch scheduler as a policy. Knows torch, never ray or the training loop."""
