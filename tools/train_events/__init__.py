"""How pipeline/events/motions/throw's motion.toml and estimator.npz were made."""
