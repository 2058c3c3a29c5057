"""How right a checkpoint and its maps are, counted with intervals."""
