"""A cluster of real Ray nodes on this machine: `raylr cluster`."""
