"""Text, image and video encoders of a pipeline's folder, run as the family's pipeline runs them."""
