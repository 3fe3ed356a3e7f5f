"""A whole site copied while it runs, looked at, and put back: manifest, rotation and sealing are plain functions."""
