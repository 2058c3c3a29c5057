"""Pictures from untrusted files, one file a format."""
