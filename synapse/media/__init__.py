"""The media repository: files, thumbnails."""
