"""Drive a torch optimizer by a policy, and import a torch scheduler as a policy. Independent of Ray and the training loop."""
