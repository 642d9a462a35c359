"""What the benchmarks of the ops are made of: workloads, inputs, the GPU, and the rows of a run."""
