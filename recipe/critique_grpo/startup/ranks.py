"""Which ranks share what."""

from omegaconf import DictConfig


def sequence_parallel(actor: DictConfig) -> int:
    """Ranks that share the tokens of a row; verl has two options for it, the older one deprecated."""
    return max(
        actor.get("ulysses_sequence_parallel_size") or 1,
        (actor.get("fsdp_config") or {}).get("ulysses_sequence_parallel_size") or 1,
    )
