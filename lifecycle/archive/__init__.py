"""The archive: sessions are written here before they are removed, and can be brought back."""
