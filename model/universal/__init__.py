"""Checkpoints from one layout of ranks to another, through DeepSpeed's universal format."""
