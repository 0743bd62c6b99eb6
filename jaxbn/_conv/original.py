"""JAX's own convolution, which jaxbn calls even while `jaxbn.patch_jax` has replaced it.

Otherwise the algorithms would call themselves, and `jaxbn.reference` would test the rules against themselves.
"""

from jax import lax

lax_conv_general_dilated = lax.conv_general_dilated
