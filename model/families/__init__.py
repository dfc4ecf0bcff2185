"""diffusers' models as pipeline layers: one small adapter for each class over a shared mechanism.

`layer_specs.py` is the way in; `docs/models.md` says how a model is added.
"""
