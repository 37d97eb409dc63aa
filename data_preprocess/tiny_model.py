"""Build a tiny, randomly initialised Llama-style model with a real tokenizer, for tests.

    python -m data_preprocess.tiny_model --tokenizer_from models/SmolLM2-135M-Instruct --local_save_dir models/tiny

It answers nothing, but every stage of training runs on it in seconds, and its shape (grouped-query attention, tied
embeddings) is that of a real model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_preprocess.common.folders import check_target, finished_folder, is_model_folder


def make_model(tokenizer: Any, *, hidden_size: int = 128, num_layers: int = 2, seed: int = 0) -> Any:
    """Return a random Llama for `tokenizer`, the same one for a seed: 6.7M parameters, 6.3M of them embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    head_dim = 32  # vLLM's CPU attention refuses 16
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // head_dim,
        num_key_value_heads=hidden_size // head_dim // 2,
        head_dim=head_dim,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    for name, token_id in special.items():
        setattr(model.generation_config, name, token_id)
    return model


def shrink(tokenizer: Any, vocab_size: int, texts: Sequence[str] = ()) -> Any:
    """Return a tokenizer of the same kind, special tokens and chat template with at most `vocab_size` tokens.

    With 49,000 tokens the output layer takes most of a tiny model's time. The tokens are those of `texts` and of the
    chat template; other words take more of them.
    """
    return tokenizer.train_new_from_iterator([tokenizer.chat_template, *texts], vocab_size)


def build(
    folder: Path,
    tokenizer_from: Path | str,
    *,
    seed: int = 0,
    vocab_size: int | None = None,
    vocab_text: Sequence[Path] = (),
    num_layers: int = 2,
) -> bool:
    """Write the model folder, with the tokenizer of `tokenizer_from`. False if it was already there."""
    from transformers import AutoTokenizer

    if is_model_folder(folder):
        return False
    check_target(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_from))
    if vocab_size is not None:
        tokenizer = shrink(tokenizer, vocab_size, [path.read_text(encoding="utf-8") for path in vocab_text])
    with finished_folder(folder) as draft:
        tokenizer.save_pretrained(draft)
        make_model(tokenizer, seed=seed, num_layers=num_layers).save_pretrained(draft)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a tiny random Llama with a real tokenizer, for tests.")
    parser.add_argument("--tokenizer_from", type=Path, required=True, help="model folder whose tokenizer is used")
    parser.add_argument("--local_save_dir", type=Path, required=True, help="folder to write, e.g. models/tiny")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    parser.add_argument("--vocab_size", type=int, help="shrink the tokenizer to this size at most (default: keep it)")
    parser.add_argument("--vocab_text", type=Path, nargs="+", default=[], help="text that the small vocabulary is for")
    parser.add_argument("--num_layers", type=int, default=2, help="layers of the model (default: 2)")
    args = parser.parse_args()
    folder = args.local_save_dir.expanduser().resolve()
    source = args.tokenizer_from.expanduser().resolve()
    if not (source / "tokenizer.json").is_file():
        parser.error(f"no tokenizer.json in {source}: build that folder first (python -m data_preprocess.smollm2)")
    if args.vocab_text and args.vocab_size is None:
        parser.error("--vocab_text is for a small vocabulary: give --vocab_size")
    print(
        f"wrote {folder}"
        if build(
            folder,
            source,
            seed=args.seed,
            vocab_size=args.vocab_size,
            vocab_text=args.vocab_text,
            num_layers=args.num_layers,
        )
        else f"{folder} is already there: nothing to do"
    )


if __name__ == "__main__":
    main()
