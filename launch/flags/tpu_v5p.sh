# shellcheck shell=bash
# TPU v5p. libtpu refuses to start on a flag it does not know; all are known to libtpu 0.0.50.1.
flags=(
  # FSDP gathers every layer's parameters: run that beside the matrix products of the layer before
  --xla_enable_async_all_gather=true
  --xla_tpu_overlap_compute_collective_tc=true
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  # not ..._fuse_all_gather: libtpu refuses to compile with it on anything but v5e
  # several slices: gradients are summed over the data-center network during the backward pass
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
)
export LIBTPU_INIT_ARGS="${flags[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}" # what was set before wins
