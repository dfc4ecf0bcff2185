"""The training side: layers, data, objective and the entrypoint. Imported as `vdsgen.model`."""

import os

if __name__ != "vdsgen.model":
    raise ImportError(
        "import this package as `vdsgen.model`; under the bare name `model` every class in it "
        "would exist twice"
    )

# Plans number GPUs as nvidia-smi does. CUDA by itself puts the fastest first, and reads this when it starts,
# which importing DeepSpeed makes it do; DeepSpeed's launcher does not pass it on to other hosts.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
