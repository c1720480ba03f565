# shellcheck shell=bash
# NVIDIA H100 and H200. jaxlib refuses to start on a flag it does not know; all are known to jaxlib 0.10.2 and 0.12.0.1.
flags=(
  --xla_gpu_enable_latency_hiding_scheduler=true # collectives start early, their results are awaited late
  # FSDP gathers and scatters one layer at a time; the next layer's while this one computes
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_pipelined_all_reduce=true
  --xla_gpu_enable_while_loop_double_buffering=true # without copies between the iterations of the scan over layers
  # join the small collectives of a layer; a layer of 7B is 0.4 GB in bfloat16, a gather must not span many
  --xla_gpu_all_gather_combine_threshold_bytes=1073741824
  --xla_gpu_reduce_scatter_combine_threshold_bytes=134217728
  --xla_gpu_all_reduce_combine_threshold_bytes=134217728
  --xla_gpu_enable_triton_gemm=false              # cuBLAS is faster for products of this size, and compiles at once
  --xla_gpu_enable_command_buffer=                # CUDA graphs cost memory and bring nothing to steps this long
  --xla_disable_hlo_passes=rematerialization      # config.model.remat says what is recomputed
)
export XLA_FLAGS="${flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}" # what was set before wins
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92} # the rest is for NCCL and cuDNN
