"""Plan, render, launch and review DeepSpeed configurations for video diffusion training."""

__version__ = "0.1.0"
