"""Training recipes of the diffusers families, computed: what vdsgen.spec.recipes describes."""
