"""What a study has come to, as a page, pictures and numbers."""
