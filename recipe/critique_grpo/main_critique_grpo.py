"""Entry point: ``python -m recipe.critique_grpo.main_critique_grpo preset=paper tier=cpu data.train_files=...``.

With ``--preflight`` (or ``preflight=true``) everything is checked and nothing is trained.
"""

import os
import sys

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="config", config_name="critique_grpo_trainer", version_base=None)
def main(config: DictConfig) -> None:
    """Check versions, configuration and data, then train. Imports wait until Hydra has answered --help and --cfg."""
    # At SIGTERM Ray would print the stack of its C++ code; Python's own handler, which it also sets, is enough.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    if config.preflight:
        from recipe.critique_grpo.startup.preflight import preflight

        sys.exit(0 if preflight(config) else 1)
    from recipe.critique_grpo.startup.check import check

    check(config)

    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from recipe.critique_grpo.startup.facts import write_facts

    about = HydraConfig.get()
    write_facts(config, about.overrides.task, Path(about.runtime.output_dir))

    from recipe.critique_grpo.trainer.runner import train

    train(config)


if __name__ == "__main__":
    # Hydra takes no flags of others.
    sys.argv = ["preflight=true" if argument == "--preflight" else argument for argument in sys.argv]
    main()
