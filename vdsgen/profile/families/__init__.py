"""What tracing asks of each family of diffusers models, beside the layers that training cuts it into.

Layers are those of vdsgen.model.families; a family's file here says what a data loader gives them, and what
their costs are sums of. Tests compare the sum of the layers with the whole model.
"""
