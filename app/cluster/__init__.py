"""`serve --cluster` and `run --cluster`: sources spread over the GPUs and machines of a Ray
cluster."""
