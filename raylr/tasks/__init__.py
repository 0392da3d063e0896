"""Tasks that come along beside image classification, each as anybody's own would be: a subclass of raylr.Task."""
