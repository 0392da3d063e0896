"""What `import raylr` offers, in plain calls: plan, train, retrain."""
