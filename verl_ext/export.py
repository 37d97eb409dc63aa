"""Make a Hugging Face model folder of one checkpoint, in the precision of the training where the checkpoint has it.

verl's merger rounds weights to bf16. That is what a GPU rollout samples from, so nothing is lost there. A run that
rolls out in fp32 (``tier=cpu``) is another matter: a short training changes most weights by less than bf16 can show,
and the rounded model is not the one that was validated. ``tier=cpu`` therefore lets verl save whole weights beside its
shards (``actor.checkpoint.save_contents``, ``hf_model``).
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

WHOLE = "*.safetensors"
LORA = "lora_train_meta.json"  # verl writes it into the checkpoint of a LoRA run
ADAPTER = "lora_adapter"  # where verl's merger puts the adapter, beside the base model


def export(actor: Path, target: Path) -> str:
    """Write ``target``, which must not exist, from ``global_step_<n>/actor``; returns the precision of its weights.

    Raises:
        subprocess.CalledProcessError: verl's merger failed; it has said why.
    """
    saved = actor / "huggingface"
    # What verl saves as the whole model of a LoRA run is the base model under the adapter's names.
    if any(saved.glob(WHOLE)) and not (actor / LORA).exists():
        shutil.copytree(saved, target)
    else:
        merge = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        subprocess.run([*merge, "--local_dir", str(actor), "--target_dir", str(target)], check=True)
        if (target / ADAPTER).is_dir():
            merge_adapter(target)
    return state_precision(target)


def merge_adapter(folder: Path) -> None:
    """Put the LoRA adapter that verl's merger has written beside a base model into its weights.

    The sum is made in fp32, and saved in the precision of the base weights.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    precision = getattr(torch, state_precision(folder))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder / ADAPTER)).merge_and_unload().to(precision)
    for old in [*folder.glob(WHOLE), *folder.glob("*.safetensors.index.json")]:
        old.unlink()
    merged.save_pretrained(folder)
    shutil.rmtree(folder / ADAPTER)


def state_precision(folder: Path) -> str:
    """Let the folder's config.json name the precision of its weights, which others load it in; returns that."""
    from safetensors import safe_open

    with safe_open(next(iter(sorted(folder.glob(WHOLE)))), framework="pt") as weights:
        precision = str(weights.get_tensor(next(iter(weights.keys()))).dtype).removeprefix("torch.")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # its name before transformers 5
    path.write_text(json.dumps({**config, "dtype": precision}, indent=2) + "\n", encoding="utf-8")
    return precision


def main() -> None:
    """Command line of ``scripts/export.sh``."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("actor", type=Path, help="global_step_<n>/actor of a run")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    try:
        print(f"weights in {export(arguments.actor, arguments.target)}")
    except subprocess.CalledProcessError as error:
        raise SystemExit("the merge failed, see above") from error


if __name__ == "__main__":
    main()
