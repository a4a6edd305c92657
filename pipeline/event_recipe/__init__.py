"""How configs/motions/throw.toml and pipeline/events/throw.npz were made; runs in no pipeline."""
