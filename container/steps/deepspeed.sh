#!/usr/bin/env bash
# Installs a requirement file that has DeepSpeed in it, with DeepSpeed's operators compiled now instead of at the start
# of a job: for CUDA_ARCHITECTURES where nvcc is, else for CPUs.
#
#   deepspeed.sh FILE
set -euo pipefail
cd "$(dirname "$0")/.."

# DeepSpeed compiles for the machine that it is built on (-march=native), which need not be the one that it runs on.
# These compilers take CPU (x86-64-v3: any x86 server since 2015) instead; of v4 they leave AVX-512 in.
portable_compilers() {
  mkdir -p portable
  cat >portable/compiler <<'END'
#!/bin/bash
name=${0##*/}
arguments=()
for argument in "$@"; do
  case $argument in
    -march=native) argument=-march=$CPU ;;
    -D__AVX512__) [ "$CPU" = x86-64-v4 ] || argument=-D__AVX256__ ;;
  esac
  arguments+=("$argument")
done
exec "/usr/bin/$name" "${arguments[@]}"
END
  chmod +x portable/compiler
  local name
  for name in cc c++ gcc g++ x86_64-linux-gnu-gcc x86_64-linux-gnu-g++; do ln -sf compiler "portable/$name"; done
  export PATH="$PWD/portable:$PATH" CPU=${CPU:-x86-64-v3}
}

# Its set-up imports torch and others that the same file locks: those first.
awk '/^deepspeed==/ { on = 1 } on { print } on && !/\\$/ { on = 0 }' "$1" >deepspeed.txt
awk '/^deepspeed==/ { off = 1 } !off { print } off && !/\\$/ { off = 0 }' "$1" >others.txt
steps/wheels.sh others.txt

# Operators are used only under the accelerator that they were built for, and a build has no GPU to be found.
if [ -x /usr/local/cuda/bin/nvcc ]; then
  export DS_ACCELERATOR=cuda CUDA_HOME=/usr/local/cuda TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES"
  operators=(FUSED_ADAM FUSED_LAMB FUSED_LION CPU_ADAM CPU_ADAGRAD CPU_LION TRANSFORMER RANDOM_LTD)
else
  unset CUDA_HOME     # the base's environment names it whether or not a toolkit is there
  export DS_ACCELERATOR=cpu
  operators=(CPU_ADAM FUSED_ADAM SHM_COMM)
fi
for operator in "${operators[@]}"; do export "DS_BUILD_$operator=1"; done
portable_compilers
steps/wheels.sh deepspeed.txt
rm -rf portable
