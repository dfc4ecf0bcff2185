"""Finding out what hardware there is, and writing it down as a lab file."""
