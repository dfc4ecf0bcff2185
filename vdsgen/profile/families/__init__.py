"""Families of diffusers models, each cut into the layers that a profile is of.

A family's file says where diffusers' own modules begin and end; nothing in them is written again but the few
lines of the model's `forward` that join them. Tests compare the sum of the layers with the whole model.
"""
