"""How fast is it here? Measuring this machine with any model, or with random weights of full size."""
