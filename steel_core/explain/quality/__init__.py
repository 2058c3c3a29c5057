"""How far an explanation can be trusted, measured: one file a family of metrics, each metric registered in `base`."""
