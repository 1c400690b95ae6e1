#!/usr/bin/env bash
# Installs Microsoft's Megatron-DeepSpeed at its pinned commit into /opt/megatron-deepspeed, and compiles ahead of time
# all that it would otherwise compile at the start of a job, on every node: the data set index and, where nvcc is, the
# fused kernels, apex and DeepSpeed's operators.
#
# The source is offline/megatron-deepspeed (a folder or an archive) or a clone of MEGATRON_URL. Either way every file
# that is installed must have the sum that it has in megatron-deepspeed.sha256.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"

MEGATRON_COMMIT=f4157be
APEX_COMMIT=810ffae374a2b9cb4b5c5e28eaeca7d7998fca0c
target=/opt/megatron-deepspeed
nvcc=/usr/local/cuda/bin/nvcc

# clone URL COMMIT FOLDER; a short commit cannot be fetched by itself.
clone() {
  git clone --quiet --filter=blob:none --no-checkout "$1" "$3"
  git -C "$3" checkout --quiet "$2"
}

megatron_source() {
  local given=offline/megatron-deepspeed archive
  archive=$(find "$given" -maxdepth 1 -name '*.tar*' 2>/dev/null | head -n 1)
  if [ -n "$archive" ]; then
    mkdir -p megatron && tar -xf "$archive" -C megatron --strip-components=1
  elif [ -e "$given/pretrain_gpt.py" ]; then
    cp -a "$given" megatron
  else
    clone "$MEGATRON_URL" "$MEGATRON_COMMIT" megatron
  fi
}

install_megatron() {
  megatron_source
  (cd megatron && sha256sum --check --quiet --strict "$here/megatron-deepspeed.sha256") ||
    { echo "the source of Megatron-DeepSpeed is not that of commit $MEGATRON_COMMIT" >&2; exit 1; }
  mkdir -p "$target"
  (cd megatron && sed 's/^[0-9a-f]*  //' "$here/megatron-deepspeed.sha256" | xargs cp --parents -t "$target")
  rm -rf megatron
  python3 steps/patch_megatron.py "$target"
  make -C "$target/megatron/data"
  install -m 0755 steps/megatron /usr/local/bin/megatron
}

install_apex() {
  if [ -e offline/apex/setup.py ]; then
    cp -a offline/apex apex
  else
    clone "$APEX_URL" "$APEX_COMMIT" apex
  fi
  (cd apex && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 python3 setup.py --cpp_ext --cuda_ext bdist_wheel --dist-dir ../apex-wheel)
  python3 -m pip install --no-deps --no-index --root-user-action=ignore --break-system-packages apex-wheel/*.whl
  rm -rf apex apex-wheel
}

install_megatron
if [ -x "$nvcc" ]; then
  export CUDA_HOME=/usr/local/cuda
  python3 steps/fused_kernels.py "$target" "$CUDA_ARCHITECTURES"
  TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" install_apex
fi
python3 -m compileall -q "$target"
