"""A DCGAN on CIFAR-10, or on any images of `data.source`, as the entry point of a job; the flags are those of `raylr train`.

The discriminator and the generator have an LR of their own on one clock:

python jobs/gan_cifar10.py --optimizers.discriminator.lr.shape cosine --optimizers.generator.lr.base 0.0001
ray job submit --working-dir . -- python jobs/gan_cifar10.py --storage /shared/runs --workers 4
"""

import sys

from raylr.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--task", "raylr.tasks.gan:DCGAN", *sys.argv[1:]]))
