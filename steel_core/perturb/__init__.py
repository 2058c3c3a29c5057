"""Controlled changes to a picture: the white stain, its matched controls, and changes to the whole picture."""
