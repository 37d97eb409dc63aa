# Environment of a CPU run; sourced by the other scripts.
export VERL_PLATFORM=cpu                   # switches verl_ext's plugins on
export HF_HUB_OFFLINE=1                    # everything is local
export TOKENIZERS_PARALLELISM=false
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}" # GiB
# By default vLLM leaves one core to its scheduler; training and generation take turns, so use them all.
export VLLM_CPU_OMP_THREADS_BIND="${VLLM_CPU_OMP_THREADS_BIND:-0-$(($(nproc) - 1))}"
# glibc gives large blocks back to the system after every use; in a virtual machine that costs as much as the maths.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=34359738368 MALLOC_TOP_PAD_=67108864
export RAY_DEDUP_LOGS=0
