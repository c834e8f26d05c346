"""A machine that runs a GPU's compiled kernels without a GPU, and watches every access: `machine.run`."""
