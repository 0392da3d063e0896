"""Many ranks: Ray's workers, drivers, populations and clusters. The only folder that imports ray."""
